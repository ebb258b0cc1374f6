"""What training costs beyond a bare PyTorch loop: the harness, masks, and scoring."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.embedded import CPU, embedded, embedded_task, embedded_trainer
from benchmarks.measurement import Comparison, alternate, in_new_process
from harness.costs.memory import PeakMemory
from harness.costs.meter import CostMeter
from harness.engine.engine import Engine
from harness.engine.replay import Replay
from harness.pruning.event import weight_scoring
from harness.registry import Registry
from harness.run import Run
from harness.scoring import Scoring, scoring_mode
from harness.seeds import derive
from harness.storage.checkpoint import Checkpoints
from harness.storage.journal import Journal
from harness.task import Split, Task
from harness.training.trainer import Trainer
from pruners.criteria import crop, magnitude, snip
from pruners.distributions import whole_network
from pruners.weights import Weights

EPOCHS = 8
CHECKPOINT_INTERVAL = 15.0
"""A quarter of the usual interval, because this run is shorter than a minute."""


def overhead() -> list[Comparison]:
    """Train an epoch by the harness and by a bare loop in turn, without validation."""
    task = embedded_task("digits")
    trainer = embedded_trainer(task)
    loop, bare = alternate(lambda: _epoch(trainer), _bare_loop(task), EPOCHS)
    lines = [Comparison("training loop / bare loop", loop, bare, "s", 1.03)]
    task.evaluate = _no_evaluation  # type: ignore[method-assign]  # the bare loop has none
    with tempfile.TemporaryDirectory() as folder:
        run = _run(task, Path(folder))
        whole, bare = alternate(lambda: run.train(epochs=1), _bare_loop(task), EPOCHS)
    lines.append(Comparison("with journal and checkpoints", whole, bare, "s", 1.05))
    return lines


def _epoch(trainer: Trainer) -> None:
    for _ in range(trainer.task.steps_per_epoch):
        trainer.step()
    trainer.mean_loss()


def _run(task: Task, folder: Path) -> Run:
    plan, trainer = embedded("digits"), embedded_trainer(task)
    checkpoints = Checkpoints(folder, CHECKPOINT_INTERVAL)
    meter = CostMeter(CPU, measure_energy=False)
    engine = Engine(plan, Registry(), trainer, checkpoints, meter, report=lambda line: None)
    journal = Journal(folder / "journal.jsonl")
    replay = Replay("dense", engine, journal, checkpoints, meter, interrupted=lambda: False)
    return Run(plan.spec, plan.settings["epochs"], task.steps_per_epoch, replay)


def _no_evaluation(model: nn.Module, split: Split) -> dict[str, float]:
    return {"accuracy": 0.0}


def _bare_loop(task: Task) -> Callable[[], None]:
    """Return a function that trains an epoch, as one would write it by hand."""
    torch.manual_seed(derive(0, "weights"))
    model = task.model()
    stream = task.stream(model, 0)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3, weight_decay=5e-5)

    def epoch() -> None:
        model.train()
        for _ in range(task.steps_per_epoch):
            images, labels = stream.next(model)
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimiser.step()

    return epoch


MASKED_ROUNDS = 40
SPARSITY = 0.98


def masked() -> list[Comparison]:
    """Time steps of a dense network, and of one with 98 % of its weights masked, in turn."""
    lines = []
    for name in ("digits", "ptb"):
        task = embedded_task(name)
        dense, trainer = embedded_trainer(task), embedded_trainer(task)
        weights = Weights(trainer.model)
        variables = weights.variables(trainer.model)
        magnitudes = {name: variable.detach().abs() for name, variable in variables.items()}
        kept = weights.select(magnitudes, SPARSITY, whole_network)
        weights.apply(trainer.model, trainer.optimiser, (), kept)
        trainer.units["weights"] = weights
        ours, theirs = alternate(trainer.step, dense.step, MASKED_ROUNDS)
        lines.append(Comparison(f"masked step, {name}", 1e3 * ours, 1e3 * theirs, "ms", 1.10))
    return lines


STEPS_BETWEEN_PRUNINGS = 10
PRUNING_ROUNDS = 18
"""With one to warm up, they take the 380 steps of the budget."""


def prunings() -> list[Comparison]:
    """Train a masked network with a pruning every 10 steps, as GMP does, and without, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        run = _run(embedded_task("digits"), Path(folder))
        run.prune(Weights, magnitude, 0.5)
        targets = itertools.count(51)

        def train() -> None:
            run.train(steps=STEPS_BETWEEN_PRUNINGS)

        def train_and_prune() -> None:
            train()
            run.prune(Weights, magnitude, next(targets) / 100, measured=False)

        ours, theirs = alternate(train_and_prune, train, PRUNING_ROUNDS)
    return [Comparison("a pruning every 10 steps / none", 1e3 * ours, 1e3 * theirs, "ms", 1.03)]


SCORING_ROUNDS = 7


def scoring() -> list[Comparison]:
    """Compare CroP with a plain double backward over the same batches, in time and memory."""
    return [line for name in ("digits", "ptb") for line in _measure(name)]


def _measure(name: str) -> list[Comparison]:
    scored, model = _scoring(name)
    with scoring_mode(model, batch_statistics=True):
        ours, plain = alternate(
            lambda: crop(scored), lambda: plain_double_backward(scored), SCORING_ROUNDS
        )
        double, single = alternate(lambda: crop(scored), lambda: snip(scored), SCORING_ROUNDS)
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
    scored, model = _scoring(task_name)
    call = crop if side == "crop" else plain_double_backward
    with scoring_mode(model, batch_statistics=True):
        memory = PeakMemory(CPU)
        call(scored)
        peak = memory.peak()
    if peak.value is None:
        raise RuntimeError(peak.reason)
    return int(peak.value)
