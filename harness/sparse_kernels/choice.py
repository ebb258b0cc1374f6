"""Chooses by measurement which layers of a model to execute sparsely."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from harness.prunable import copied
from harness.sparse_kernels.execution import (
    DENSE,
    Masks,
    SparseExecution,
    SparseLayer,
    sparse_layers,
)
from harness.sparse_kernels.operators import in_one_piece
from harness.sparse_kernels.optimization import SparseSteps

DENSEST = 0.5
"""Layers with a larger share of their weights left are not tried."""
CLEARLY_FASTER = 0.95
"""The ratio of sparse to dense time above which execution stays dense."""
ROUNDS = 7
"""The fewest measurements of each side."""
SHORTEST_TURN = 2e-3
"""Seconds for which shorter calls are repeated."""
_Side = tuple[AbstractContextManager[object], Callable[[], object]]
"""What is measured: a call within a context, which is entered beforehand."""


@dataclass(frozen=True)
class Choice:
    """Which kernels a model uses, and what was measured.

    Ratios are of seconds, sparse over dense: above 1, sparse is slower than dense.
    """

    kernels: Mapping[str, str]
    """For each masked layer, by name: ``sparse csr``, ``sparse 2:4`` or ``dense``."""
    reasons: Mapping[str, str]
    """Why a layer is dense."""
    ratios: Mapping[str, float]
    """Of each layer that was tried, by itself."""
    ratio: float
    """Of the whole call as chosen; 1 where all layers are dense."""
    ratio_all_sparse: float | None
    """Of the whole call with each layer sparse that can be; None where none can."""
    contiguous: bool
    """Whether outputs have to be laid out in memory as by dense layers."""

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers to execute sparsely."""
        return tuple(name for name, kernel in self.kernels.items() if kernel != DENSE)


def choose_kernels(
    model: nn.Module,
    masks: Masks,
    call: Callable[[], object],
    *,
    training: bool = False,
    seconds: float = 0.1,
) -> Choice:
    """Measure layer by layer, then the whole call, and return what is fastest.

    Gradients, buffers and torch's random state on the CPU are put back afterwards.

    Args:
        model: the model, in the mode in which it will be used.
        masks: what survives, by the weight's name.
        call: runs the model on a sample batch: an inference, or a forward and a backward pass. It
            must not change the weights.
        training: whether backward passes count.
        seconds: how long to measure each layer, and each combination of them for the whole.
    """
    possible, reasons = sparse_layers(model, masks)
    masked = {*possible, *reasons}
    for name, layer in possible.items():
        if layer.density > DENSEST:
            reasons[name] = f"{layer.density:.0%} of its weights are left"
    tried = {name: layer for name, layer in possible.items() if name not in reasons}
    with _undisturbed(model):
        trial = _Trial(model, masks, call, training, seconds)
        ratios = trial.layer_by_layer(tried) if tried else {}
        reasons |= {
            name: "the call does not run it as a module" for name in tried if name not in ratios
        }
        candidates = _candidates(ratios)
        wholes = trial.whole(candidates)
    best = min(range(len(wholes)), key=wholes.__getitem__, default=None)
    chosen: Collection[str] = ()
    if best is not None and wholes[best] <= CLEARLY_FASTER:
        chosen = candidates[best]
    for name in ratios:
        if name not in chosen:
            reasons[name] = (
                f"sparse takes {ratios[name]:.2f} times as long"
                if ratios[name] > CLEARLY_FASTER
                else "the whole call does not become faster"
            )
    return Choice(
        kernels={
            name: tried[name].kernel if name in chosen else DENSE
            for name, _ in model.named_modules()
            if name in masked
        },
        reasons=reasons,
        ratios=ratios,
        ratio=wholes[best] if chosen and best is not None else 1.0,
        ratio_all_sparse=wholes[0] if wholes else None,
        contiguous=trial.contiguous,
    )


def ratio_of_steps(
    model: nn.Module,
    masks: Masks,
    build_optimizer: Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer],
    seconds: float = 0.1,
) -> float:
    """Return the time of an optimizer step on surviving weights only, relative to a whole one.

    Args:
        model: whose weights are masked; copies of them take the steps.
        masks: what survives, by the weight's name.
        build_optimizer: returns an optimizer of parameters.
        seconds: how long to measure each kind of step.
    """
    sides: list[_Side] = []
    for sparse in (True, False):
        mine = copied(model)
        for parameter in mine.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer = build_optimizer(mine.parameters())
        step = partial(SparseSteps(mine, masks).step, optimizer) if sparse else optimizer.step
        sides.append((nullcontext(), step))
    own, whole = _take_turns(sides, seconds)
    return own / whole


def _candidates(ratios: Mapping[str, float]) -> list[Collection[str]]:
    """Return which sets of layers to try together: all, and those faster by themselves."""
    if not ratios:
        return []
    faster = [name for name, ratio in ratios.items() if ratio <= CLEARLY_FASTER]
    return [list(ratios), faster] if 0 < len(faster) < len(ratios) else [list(ratios)]


class _Trial:
    """Measurements of one call of a model.

    Args:
        model: the model.
        masks: what survives.
        call: runs the model.
        training: whether backward passes count.
        seconds: how long to measure each side.
    """

    def __init__(
        self,
        model: nn.Module,
        masks: Masks,
        call: Callable[[], object],
        training: bool,
        seconds: float,
    ) -> None:
        self._model = model
        self._masks = masks
        self._call = call
        self._training = training
        self._seconds = seconds
        self.contiguous = False

    def layer_by_layer(self, layers: Mapping[str, SparseLayer]) -> dict[str, float]:
        """Return the ratio of each layer that the call runs, on the inputs that it gets."""
        dense_inputs = self._inputs(layers)
        self.contiguous = self._depends_on_layout(layers)
        with self._sparse(layers):
            sparse_inputs = self._inputs(layers)
        # A network may compute without its modules where their forward passes are torch's own.
        return {
            name: self._ratio(
                name,
                layers[name].module,
                dense_inputs.get(name) or _copied(inputs, torch.contiguous_format),
                inputs,
            )
            for name, inputs in sparse_inputs.items()
        }

    def _depends_on_layout(self, layers: Mapping[str, SparseLayer]) -> bool:
        """Return whether the call needs outputs that are laid out as by dense layers.

        Other calls may have fewer samples, so many are not divided, as their outputs would be
        laid out densely.
        """
        drawing = _Drawing()
        with in_one_piece(), self._sparse(layers), drawing:
            try:
                self._call()
            except RuntimeError as error:
                if "view" not in str(error):
                    raise
                return True
        return drawing.depends_on_layout

    def whole(self, candidates: list[Collection[str]]) -> list[float]:
        """Return the ratio of the whole call for each set of layers."""
        if not candidates:
            return []
        executions = [self._sparse(names) for names in candidates]
        sides: list[_Side] = [(execution, self._call) for execution in executions]
        dense, *times = self._take_turns([(nullcontext(), self._call), *sides], self._model)
        return [time / dense for time in times]

    def _ratio(self, name: str, module: nn.Module, dense_inputs: Any, sparse_inputs: Any) -> float:
        def run(inputs: Any) -> None:
            if self._training:
                _forward_and_backward(module, inputs)
            else:
                with torch.no_grad():
                    module(*inputs)

        sparse, dense = self._take_turns(
            [
                (self._sparse([name]), lambda: run(sparse_inputs)),
                (nullcontext(), lambda: run(dense_inputs)),
            ],
            module,
        )
        return sparse / dense

    def _inputs(self, layers: Mapping[str, SparseLayer]) -> dict[str, tuple[Any, ...]]:
        """Run the call and return copies of the first inputs of each layer that it runs."""
        inputs: dict[str, tuple[Any, ...]] = {}
        names = {layer.module: name for name, layer in layers.items()}

        def note(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            if names[module] not in inputs:
                inputs[names[module]] = _copied(arguments)

        with ExitStack() as hooks:
            for module in names:
                hooks.callback(module.register_forward_pre_hook(note).remove)
            self._call()
        return inputs

    def _sparse(self, names: Collection[str]) -> SparseExecution:
        return SparseExecution(self._model, self._masks, names, self.contiguous)

    def _take_turns(self, sides: Sequence[_Side], changed: nn.Module) -> list[float]:
        """Return the least seconds of calls that take turns.

        When training, the parameters of ``changed`` count as changed before each call, as they
        are after an optimizer step.
        """
        parameters = list(changed.parameters())
        device = next((each.device for each in parameters if each.is_cuda), None)

        def changing(call: Callable[[], object]) -> None:
            if self._training:
                for parameter in parameters:
                    torch.autograd.graph.increment_version(parameter)
            call()

        return _take_turns(
            [(context, partial(changing, call)) for context, call in sides], self._seconds, device
        )


class _Drawing(TorchDispatchMode):
    """Notices random numbers for tensors that are not in C order.

    torch draws them in the order of the memory, so they would not be those of dense layers.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types here
        self.depends_on_layout = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.depends_on_layout |= not all(each.is_contiguous() for each in _tensors(args))
        return func(*args, **(kwargs or {}))


def _take_turns(
    sides: Sequence[_Side], seconds: float, device: torch.device | None = None
) -> list[float]:
    """Return the least seconds of calls that take turns, after a warm-up each.

    What else a busy machine does can only add to a time. Short calls are repeated within a turn, so
    that each finds the cache as its own kind left it.

    Args:
        sides: the calls, each with its context.
        seconds: how long to measure each.
        device: the GPU to wait for, if they use one.
    """

    def turn(side: _Side, repetitions: int) -> float:
        context, call = side
        with context:
            began = perf_counter()
            for _ in range(repetitions):
                call()
            if device is not None:
                torch.cuda.synchronize(device)
            return (perf_counter() - began) / repetitions

    for side in sides:
        turn(side, 1)
    repetitions = [max(1, round(SHORTEST_TURN / turn(side, 1))) for side in sides]
    times: list[list[float]] = [[] for _ in sides]
    end = perf_counter() + seconds * len(sides)
    while len(times[0]) < ROUNDS or perf_counter() < end:
        for side, number, measured in zip(sides, repetitions, times, strict=True):
            measured.append(turn(side, number))
    return [min(measured) for measured in times]


def _forward_and_backward(module: nn.Module, inputs: tuple[Any, ...]) -> None:
    outputs = [output for output in _tensors(module(*inputs)) if output.requires_grad]
    leaves = [leaf for leaf in _tensors(inputs) if leaf.requires_grad]
    leaves += [parameter for parameter in module.parameters() if parameter.requires_grad]
    gradients = [torch.ones_like(output) for output in outputs]
    torch.autograd.grad(outputs, leaves, gradients, allow_unused=True)


def _copied(inputs: Any, layout: torch.memory_format = torch.preserve_format) -> Any:
    if isinstance(inputs, Tensor):
        copy = inputs.detach().clone(memory_format=layout)
        return copy.requires_grad_(inputs.requires_grad)
    if isinstance(inputs, tuple):
        return tuple(_copied(each, layout) for each in inputs)
    return inputs


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, tuple):
        for value in values:
            yield from _tensors(value)


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
