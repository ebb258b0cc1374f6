"""The contract of units: what can be pruned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from harness.errors import RunFailed

Scores = dict[str, Tensor]
"""For each variable a tensor of its shape: the larger, the more worth keeping."""

Kept = dict[str, Tensor]
"""For each variable a boolean tensor of its shape: what stays."""

Forward = Callable[[nn.Module], Tensor]
"""Runs the model once and returns its outputs, for units that have to follow it."""

Scope = Callable[[Mapping[str, torch.Size], float], Mapping[str, int] | None]
"""How a target sparsity is spread: from the shapes of the variables and the sparsity to the
number of variables to keep in each tensor, or None where one threshold rules them all."""


class Units(Protocol):
    """One kind of thing that can be pruned, in one model.

    Registered with `harness.registry.units` and built with the run's model, so that a journal or
    a saved model can name what it needs.
    """

    exact: bool
    """Whether every sparsity can be reached to one weight."""

    def __init__(self, model: nn.Module, forward: Forward | None = None) -> None: ...

    def as_variables(self, model: nn.Module) -> AbstractContextManager[dict[str, Tensor]]:
        """Return a context in which the model's loss depends on what criteria score.

        It gives tensors that require grad.
        """

    def alive(self) -> Kept:
        """Return which variables earlier events have left."""

    def masks(self) -> Kept:
        """Return the masks of the prunable weights that are zeroed but still there, by name."""

    def nodes(self) -> float | None:
        """Return the fraction of all channels that is gone, None where none can go."""

    def select(self, scores: Scores, target: float, scope: Scope, floor: float = 0.0) -> Kept:
        """Return the variables to keep so that the weight sparsity becomes ``target``.

        ``floor`` is the share of each tensor of the dense network that stays in any case.

        Raises:
            UnreachableSparsity: no selection reaches the target.
            ScoreError: a score is not a number.
        """

    def shuffled(self, kept: Kept, generator: torch.Generator) -> Kept:
        """Return a random selection with the same number kept in each tensor, from those alive."""

    def apply(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer | None,
        companions: Sequence[nn.Module],
        kept: Kept,
    ) -> None:
        """Remove everything else from the model, its companions and the optimiser's state."""

    def before_step(self, model: nn.Module) -> None:
        """Keep the gradients of what was removed out of clipping and of the optimiser."""

    def after_step(self, model: nn.Module) -> None:
        """Make sure that what was removed is still gone."""

    def state(self) -> dict[str, Tensor]:
        """Return what is needed to go on from here: what was kept, by name."""

    def restore(
        self,
        model: nn.Module,
        state: Mapping[str, Any],
        optimiser: torch.optim.Optimizer | None = None,
        companions: Sequence[nn.Module] = (),
    ) -> None:
        """Remove what is gone in a state from a model that still has it.

        The model may be newly built, or have lost a part of it already.
        """


def all_masks(units: Iterable[Units]) -> Kept:
    """Return the masks of all units of a run together."""
    return {name: mask for each in units for name, mask in each.masks().items()}


class UnreachableSparsity(Exception):
    """No selection reaches the sparsity asked for.

    Args:
        asked: the requested sparsity.
        reachable: the nearest one that can be had.
        because: why, where that is not plain.
    """

    def __init__(self, asked: float, reachable: float, because: str = "") -> None:
        super().__init__(
            f"a sparsity of {_fraction(asked)} cannot be reached; "
            f"the nearest that can is {_fraction(reachable)}{f': {because}' if because else ''}"
        )
        self.asked = asked
        self.reachable = reachable


def _fraction(value: float) -> str:
    """Return ten digits, and all of them where ten would say that nothing is left."""
    text = f"{value:.10g}"
    return repr(value) if text == "1" and value < 1 else text


class ScoreError(RunFailed):
    """A criterion returned something that cannot be ranked."""
