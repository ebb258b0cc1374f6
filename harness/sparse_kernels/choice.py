"""Chooses by measurement which layers of a model to execute sparsely."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from harness.sparse_kernels.execution import (
    DENSE,
    Masks,
    SparseExecution,
    SparseLayer,
    sparse_layers,
)

DENSEST = 0.5
"""Layers with a larger share of their weights left are not tried."""
ROUNDS = 7
"""Fewest measurements of each side, which take turns."""
CLEARLY_FASTER = 0.95
"""The ratio of times above which a layer stays dense."""


@dataclass(frozen=True)
class Choice:
    """Which kernels a model uses, and what was measured."""

    kernels: Mapping[str, str]
    """For each masked layer, by name: ``sparse csr``, ``sparse 2:4`` or ``dense``."""
    reasons: Mapping[str, str]
    """Why a layer is dense."""
    ratios: Mapping[str, float]
    """Sparse over dense seconds of each layer that was tried, alone."""
    whole: float
    """Seconds of the whole call as chosen over seconds when dense; 1 where all layers are."""
    slower: float | None
    """The same with all layers sparse that can be; None where none can."""
    contiguous: bool
    """Whether outputs have to be laid out as by dense layers."""

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that are executed sparsely."""
        return tuple(name for name, kernel in self.kernels.items() if kernel != DENSE)


def choose_kernels(
    model: nn.Module,
    masks: Masks,
    call: Callable[[], object],
    *,
    training: bool = False,
    seconds: float = 0.1,
) -> Choice:
    """Measure layer by layer, and then the whole, and return what is fastest.

    Parameters, their gradients, buffers and the random state are the same afterwards.

    Args:
        model: the model, in the mode in which it is to be used.
        masks: what survives, by the weight's name.
        call: runs the model once on a sample batch: an inference, or a forward and backward pass.
            It must not change the weights.
        training: whether backward passes count.
        seconds: how long to measure each layer, and each combination for the whole.
    """
    possible, reasons = sparse_layers(model, masks)
    names = [*possible, *reasons]
    for name, layer in possible.items():
        if layer.density > DENSEST:
            reasons[name] = f"{layer.density:.0%} of its weights are left"
    possible = {name: layer for name, layer in possible.items() if name not in reasons}
    with _undisturbed(model):
        contiguous, ratios = False, {}
        if possible:
            contiguous = _needs_contiguous(model, masks, possible, call)
            ratios = _measure_layers(
                model, masks, possible, call, contiguous, training, seconds, reasons
            )
        chosen, whole, slower = _fastest(
            model, masks, ratios, call, contiguous, training, seconds, reasons
        )
    chosen_kernels = {
        name: possible[name].kernel if name in chosen else DENSE for name in _in_order(model, names)
    }
    return Choice(chosen_kernels, reasons, ratios, whole, slower, contiguous)


def _in_order(model: nn.Module, names: list[str]) -> list[str]:
    return [name for name, _ in model.named_modules() if name in names]


def _needs_contiguous(
    model: nn.Module, masks: Masks, layers: Mapping[str, SparseLayer], call: Callable[[], object]
) -> bool:
    """Return whether the model refuses outputs that are transposed in memory."""
    call()
    execution = SparseExecution(model, masks, list(layers))
    execution.enter()
    try:
        call()
    except RuntimeError as error:
        if "view" not in str(error):
            raise
        return True
    finally:
        execution.leave()
    return False


@dataclass
class _Calls:
    """The inputs with which a layer was called first, and how often it was called."""

    inputs: tuple[Any, ...]
    number: int = 0


def _record(layers: Mapping[str, SparseLayer], call: Callable[[], object]) -> dict[str, _Calls]:
    """Run a call and return how each layer was called; layers that were not are missing."""
    calls: dict[str, _Calls] = {}
    with ExitStack() as hooks:
        for name, layer in layers.items():

            def note(module: nn.Module, inputs: tuple[Any, ...], name: str = name) -> None:
                if name not in calls:
                    calls[name] = _Calls(_copied(inputs))
                calls[name].number += 1

            hooks.callback(layer.module.register_forward_pre_hook(note).remove)
        call()
    return calls


def _copied(inputs: Any) -> Any:
    if isinstance(inputs, Tensor):
        return inputs.detach().clone().requires_grad_(inputs.requires_grad)
    return tuple(map(_copied, inputs)) if isinstance(inputs, tuple) else inputs


def _measure_layers(
    model: nn.Module,
    masks: Masks,
    layers: Mapping[str, SparseLayer],
    call: Callable[[], object],
    contiguous: bool,
    training: bool,
    seconds: float,
    reasons: dict[str, str],
) -> dict[str, float]:
    """Return sparse over dense seconds of each layer, with the inputs that each side gets."""
    dense_calls = _record(layers, call)
    execution = SparseExecution(model, masks, list(layers), contiguous)
    execution.enter()
    sparse_calls = _record(layers, call)
    execution.leave()
    ratios = {}
    for name, layer in layers.items():
        if name not in dense_calls:
            reasons[name] = "the call does not run it as a module"
            continue
        one = SparseExecution(model, masks, [name], contiguous)
        sparse, dense = _take_turns(
            [
                _of(one, lambda: _run(layer, sparse_calls[name].inputs, training)),
                lambda: _run(layer, dense_calls[name].inputs, training),
            ],
            seconds,
            layer.module,
        )
        ratios[name] = sparse / dense
        if ratios[name] > CLEARLY_FASTER:
            reasons[name] = f"sparse takes {ratios[name]:.2f} times as long"
    return ratios


def _run(layer: SparseLayer, inputs: tuple[Any, ...], training: bool) -> None:
    module = layer.module
    if not training:
        with torch.no_grad():
            module(*inputs)
        return
    outputs = [output for output in _tensors(module(*inputs)) if output.requires_grad]
    leaves = [leaf for leaf in _tensors(inputs) if leaf.requires_grad]
    leaves += [parameter for parameter in module.parameters() if parameter.requires_grad]
    gradients = [torch.ones_like(output) for output in outputs]
    torch.autograd.grad(outputs, leaves, gradients, allow_unused=True)


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, tuple):
        for value in values:
            yield from _tensors(value)


def _of(execution: SparseExecution, call: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        execution.enter()
        try:
            call()
        finally:
            execution.leave()

    return run


def _fastest(
    model: nn.Module,
    masks: Masks,
    ratios: Mapping[str, float],
    call: Callable[[], object],
    contiguous: bool,
    training: bool,
    seconds: float,
    reasons: dict[str, str],
) -> tuple[set[str], float, float | None]:
    """Return the fastest set of layers, its time and that of all layers, in terms of dense."""
    if not ratios:
        return set(), 1.0, None
    better = {name for name, ratio in ratios.items() if ratio <= CLEARLY_FASTER}
    candidates = [set(ratios), better] if better and better != set(ratios) else [set(ratios)]
    executions = [SparseExecution(model, masks, names, contiguous) for names in candidates]
    dense, *times = _take_turns(
        [call, *(_of(execution, call) for execution in executions)], seconds, model
    )
    best = min(range(len(times)), key=times.__getitem__)
    everything = times[0] / dense
    if times[best] / dense > CLEARLY_FASTER:
        for name in ratios:
            reasons.setdefault(name, "the whole call is not faster")
        return set(), 1.0, everything
    for name in candidates[best]:
        reasons.pop(name, None)
    return candidates[best], times[best] / dense, everything


def _take_turns(
    calls: list[Callable[[], object]], seconds: float, changed: nn.Module
) -> list[float]:
    """Return the median seconds of calls that take turns, after one warm-up each.

    Args:
        calls: what to measure.
        seconds: how long to measure each, if that allows for `ROUNDS` measurements.
        changed: whose parameters count as changed before each, like after a training step.
    """
    devices = {parameter.device for parameter in changed.parameters()}
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    end = perf_counter() + seconds * len(calls)
    while len(times[0]) < ROUNDS or perf_counter() < end:
        for call, measured in zip(calls, times, strict=True):
            began = perf_counter()
            call()
            for device in devices:
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
            measured.append(perf_counter() - began)
    return [statistics.median(measured) for measured in times]


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Put gradients, buffers and the random state back afterwards."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    gradients = [
        (parameter, None if parameter.grad is None else parameter.grad.clone())
        for parameter in model.parameters()
    ]
    random = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(random)
        for buffer, value in buffers:
            buffer.copy_(value)
        for parameter, gradient in gradients:
            parameter.grad = gradient
