"""How the layers of a network in training are executed: densely, or some of them sparsely."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from harness.units import Kept

if TYPE_CHECKING:
    from harness.sparse_kernels import SparseExecution, SparseSteps


@dataclass(frozen=True)
class Kernels:
    """The condition ``kernels`` (`harness.conditions`) after a pruning: what is executed sparsely.

    Attributes:
        layers: the names of the layers whose forward and backward passes are sparse.
        contiguous: whether their outputs have to be laid out in memory as by dense layers.
        steps: whether optimizer steps are taken on surviving weights only.
        weights: how many masked weights were left when this was chosen; None if nothing was.
    """

    layers: tuple[str, ...] = ()
    contiguous: bool = False
    steps: bool = False
    weights: int | None = None

    @property
    def are_dense(self) -> bool:
        """Whether nothing is executed sparsely."""
        return not (self.layers or self.steps)


DENSE = Kernels()
"""The default."""

WATCHED = "this training is dense, since scores are computed from all its gradients"
"""Why a `harness.operations.Watch` releases its training from sparse kernels."""


class Execution:
    """Executes a network with kernels, whose structure follows the masks that it is made with.

    Layers are sparse within its contexts only. So whatever needs second derivatives, such as
    scores, is computed densely.

    Args:
        kernels: what is executed sparsely.
        model: the network.
        masks: what survives, by the weight's name.
    """

    def __init__(self, kernels: Kernels, model: nn.Module, masks: Kept) -> None:
        self._layers: SparseExecution | None = None
        self._steps: SparseSteps | None = None
        if not kernels.are_dense:
            # Imported here because it imports SciPy, which other runs do not need.
            from harness.sparse_kernels import SparseExecution, SparseSteps

            if kernels.layers:
                self._layers = SparseExecution(model, masks, kernels.layers, kernels.contiguous)
            if kernels.steps:
                self._steps = SparseSteps(model, masks)

    def passes(self) -> AbstractContextManager[object]:
        """Return a context for forward and backward passes of training."""
        return self._layers or nullcontext()

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Yield a context for evaluation, whose code may need layouts that training does not."""
        if (layers := self._layers) is None:
            yield
            return
        before, layers.contiguous = layers.contiguous, True
        try:
            with layers:
                yield
        finally:
            layers.contiguous = before

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Take an optimizer step."""
        if self._steps is None:
            optimizer.step()
        else:
            self._steps.step(optimizer)


DENSE_EXECUTION = Execution(DENSE, nn.Identity(), {})
"""Of any network."""
