"""The contract of units: the kinds of things that can be pruned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from harness.errors import RunFailed

Scores = dict[str, Tensor]
"""For each variable a tensor of its shape; the lowest scores are removed."""

Kept = dict[str, Tensor]
"""For each variable a boolean tensor of its shape: True is kept."""

Forward = Callable[[nn.Module], Tensor]
"""Runs the model once and returns its outputs, for units that trace the model."""

Scope = Callable[[Mapping[str, torch.Size], float], Mapping[str, int] | None]
"""How a target sparsity is distributed over layers. It maps the shapes of the variables and the
sparsity to the number of variables to keep in each tensor; None means one global threshold."""


class Units(Protocol):
    """The prunable units of one kind, single weights or channels, in one model.

    A kind is registered with `harness.registry.units`, so that journals and saved networks can
    refer to it by name, and is built with the run's model.
    """

    exact: bool
    """Whether every sparsity can be reached, to within one weight."""

    def __init__(self, model: nn.Module, forward: Forward | None = None) -> None: ...

    def as_variables(self, model: nn.Module) -> AbstractContextManager[dict[str, Tensor]]:
        """Return a context that yields the variables that criteria score, as tensors with grad.

        Within it the model's loss depends on them.
        """

    def alive(self) -> Kept:
        """Return which variables have not been removed."""

    def masks(self) -> Kept:
        """Return the masks of prunable weights that are zeroed in place, by name."""

    def nodes(self) -> float | None:
        """Return the fraction of all channels removed; None for units that remove no channels."""

    def select(self, scores: Scores, target: float, scope: Scope, floor: float = 0.0) -> Kept:
        """Select the variables to keep, so that the weight sparsity becomes ``target``.

        Args:
            scores: for each variable a tensor of its shape; the highest are kept.
            target: the fraction of the dense network's prunable weights to remove.
            scope: how the target is distributed over layers.
            floor: the share of each tensor of the dense network that always stays.

        Raises:
            UnreachableSparsity: no selection reaches the target.
            ScoreError: a score is not a number.
        """

    def shuffled(self, kept: Kept, generator: torch.Generator) -> Kept:
        """Return a random selection of remaining variables, per tensor as many as in ``kept``."""

    def apply(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer | None,
        companions: Sequence[nn.Module],
        kept: Kept,
    ) -> None:
        """Remove all other variables.

        Args:
            model: the network.
            optimiser: its optimizer, whose state is cut, too; None if there is none.
            companions: target networks, which must stay pruned like the model.
            kept: what stays.
        """

    def before_step(self, model: nn.Module) -> None:
        """Zero the gradients of removed weights, before clipping and before the optimizer step."""

    def after_step(self, model: nn.Module) -> None:
        """Zero the removed weights again after an optimizer step."""

    def state(self) -> dict[str, Tensor]:
        """Return the state from which these units can be restored: what was kept, by name."""

    def restore(
        self,
        model: nn.Module,
        state: Mapping[str, Any],
        optimiser: torch.optim.Optimizer | None = None,
        companions: Sequence[nn.Module] = (),
    ) -> None:
        """Remove from a model everything that is removed in a state.

        The model may be new and dense, or partly pruned already.
        """


def all_masks(units: Iterable[Units]) -> Kept:
    """Return the masks of all units of a run in one dictionary."""
    return {name: mask for each in units for name, mask in each.masks().items()}


class UnreachableSparsity(Exception):
    """No selection reaches the requested sparsity.

    Args:
        asked: the requested sparsity.
        reachable: the nearest reachable sparsity.
        because: the reason, unless it is obvious.
    """

    def __init__(self, asked: float, reachable: float, because: str = "") -> None:
        super().__init__(
            f"a sparsity of {_fraction(asked)} cannot be reached; "
            f"the nearest that can is {_fraction(reachable)}{f': {because}' if because else ''}"
        )
        self.asked = asked
        self.reachable = reachable


def _fraction(value: float) -> str:
    """Return ten digits, or all digits if ten would round to 1."""
    text = f"{value:.10g}"
    return repr(value) if text == "1" and value < 1 else text


class ScoreError(RunFailed):
    """A criterion returned scores that cannot be ranked."""
