"""What CroP costs: time and memory beside a plain double backward over the same batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.laboratory import CPU, embedded_task, embedded_trainer
from benchmarks.measurement import Comparison, alternate, in_new_process
from harness.costs.memory import PeakMemory
from harness.pruning.event import weight_scoring
from harness.scoring import Scoring, scoring_mode
from pruners.criteria import crop, snip

ROUNDS = 7


def measure() -> list[Comparison]:
    """Time in turn; memory in a process for each side."""
    return [line for name in ("digits", "ptb") for line in _measure(name)]


def _measure(name: str) -> list[Comparison]:
    scoring, model = _scoring(name)
    with scoring_mode(model, batch_statistics=True):
        ours, plain = alternate(
            lambda: crop(scoring), lambda: plain_double_backward(scoring), ROUNDS
        )
        double, single = alternate(lambda: crop(scoring), lambda: snip(scoring), ROUNDS)
    threads = torch.get_num_threads()
    our_peak = in_new_process(_peak, name, "crop", threads) / 1e6
    plain_peak = in_new_process(_peak, name, "plain", threads) / 1e6
    return [
        Comparison(f"CroP / double backward, {name}", ours, plain, "s", 1.05),
        Comparison(f"CroP / gradient pass, {name}", double, single, "s", None),
        Comparison(f"CroP peak memory, {name}", our_peak, plain_peak, "MB", 1.10),
    ]


def plain_double_backward(scoring: Scoring) -> list[Tensor]:
    """Return CroP's scores as one would write them by hand."""
    weights = list(scoring.variables.values())
    flow: Sequence[Tensor] = [torch.zeros_like(weight) for weight in weights]
    for loss in scoring.losses:
        gradients = torch.autograd.grad(loss(), weights)
        flow = [total + gradient for total, gradient in zip(flow, gradients, strict=True)]
    products: Sequence[Tensor] = [torch.zeros_like(weight) for weight in weights]
    for loss in scoring.losses:
        gradients = torch.autograd.grad(loss(), weights, create_graph=True)
        inner = sum((g * f).sum() for g, f in zip(gradients, flow, strict=True))
        assert isinstance(inner, Tensor)
        products = [
            total + product
            for total, product in zip(products, torch.autograd.grad(inner, weights), strict=True)
        ]
    return [(weight * product).abs() for weight, product in zip(weights, products, strict=True)]


def _scoring(task_name: str) -> tuple[Scoring, torch.nn.Module]:
    task = embedded_task(task_name)
    trainer = embedded_trainer(task)
    return weight_scoring(trainer, task.scoring_batches(0)), trainer.model


def _peak(task_name: str, side: str, threads: int) -> int:
    """Return the peak memory of one side in bytes, in a new process."""
    torch.set_num_threads(threads)
    scoring, model = _scoring(task_name)
    call = crop if side == "crop" else plain_double_backward
    with scoring_mode(model, batch_statistics=True):
        memory = PeakMemory(CPU)
        call(scoring)
        peak = memory.peak()
    if peak.value is None:
        raise RuntimeError(peak.reason)
    return int(peak.value)
