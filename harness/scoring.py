"""What a criterion may look at."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

if TYPE_CHECKING:
    from harness.units import Units

Scores = dict[str, Tensor]
"""For each variable a tensor of its shape: the larger, the more worth keeping."""


@dataclass(frozen=True)
class Scoring:
    """The variables of a pruning event, and the training loss as a function of them.

    A variable is a tensor that requires grad: a weight, or a gate. All come from training data.
    """

    variables: Mapping[str, Tensor]
    alive: Mapping[str, Tensor]
    """For each variable a boolean tensor of its shape: what earlier events have left."""
    losses: Sequence[Callable[[], Tensor]]
    """The training loss of each scoring batch, computed anew at every call."""
    without_signs: Callable[[], contextlib.AbstractContextManager[Callable[[], Tensor]]]
    """A context in which the model and the variables hold their magnitudes in double precision;
    it gives the function that computes the summed output for an input of ones (SynFlow)."""
    generator: torch.Generator
    """The event's own random numbers, on the CPU."""
    units: Units | None = None
    """What the variables belong to, for criteria that look at more of it."""

    def gradient(self) -> dict[str, Tensor]:
        """Return the summed gradient over the scoring batches, zero where pruned."""
        total = {name: torch.zeros_like(variable) for name, variable in self.variables.items()}
        for loss in self.losses:
            gradients = torch.autograd.grad(
                loss(), list(self.variables.values()), materialize_grads=True
            )
            for sum_, gradient in zip(total.values(), gradients, strict=True):
                sum_.add_(gradient)
        for name, sum_ in total.items():
            sum_.mul_(self.alive[name])
        return total


Criterion = Callable[[Scoring], Scores]
"""How to prune: the larger a variable's score, the more it is worth keeping."""


@contextlib.contextmanager
def scoring_mode(model: nn.Module, batch_statistics: bool) -> Iterator[None]:
    """Dropout off, buffers untouched; BatchNorm uses the batch's statistics, or the running ones.

    Running statistics are stale after a few epochs and undefined at initialisation, so the
    batch's are the default.
    """
    modes = {module: module.training for module in model.modules()}
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    tracked = [norm.track_running_stats for norm in norms]
    model.eval()
    if batch_statistics:
        for norm in norms:
            # Training mode without running statistics: normalise by the batch, update nothing.
            norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm, flag in zip(norms, tracked, strict=True):
            norm.track_running_stats = flag
        for module, training in modes.items():
            module.training = training


@contextlib.contextmanager
def magnitudes(model: nn.Module, variables: Mapping[str, Tensor]) -> Iterator[None]:
    """Let every parameter, buffer and variable hold its magnitude, in double precision."""
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    tensors |= {id(variable): variable for variable in variables.values()}
    originals = {key: tensor.data for key, tensor in tensors.items() if tensor.is_floating_point()}
    try:
        for key, original in originals.items():
            tensors[key].data = original.double().abs()
        yield
    finally:
        for key, original in originals.items():
            tensors[key].data = original
