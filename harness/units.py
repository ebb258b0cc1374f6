"""The contract of units: the kinds of things that can be pruned."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from harness.budget import written
from harness.errors import RequestError, RunFailed, Skip

Scores = dict[str, Tensor]
"""For each variable a tensor of its shape; the lowest scores are removed."""

Kept = dict[str, Tensor]
"""For each variable a boolean tensor of its shape: True is kept."""

Forward = Callable[[nn.Module], Tensor]
"""Runs the model once and returns its outputs, for units that trace the model."""

Scope = Callable[[Mapping[str, torch.Size], float], Mapping[str, int] | None]
"""How a target sparsity is distributed over layers. It maps the shapes of the variables and the
sparsity to the number of variables to keep in each tensor; None means one global threshold."""


@dataclass(frozen=True)
class Pattern:
    """What remains of the weights: of every ``m`` consecutive inputs of an output, the ``n`` best.

    ``Pattern(2, 4)`` is the 2:4 sparsity of GPUs (Mishra et al. 2021, arXiv:2104.08378). The inputs
    are those of a linear layer, or the channels at one position of a kernel. If their number is
    no multiple of ``m``, the last, shorter block keeps at most ``n`` of its own.

    Raises:
        RequestError: ``n`` is not from 1 to ``m - 1``.
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        if not 1 <= self.n < self.m:
            raise RequestError(
                f"the pattern {self} does not exist: n of m inputs remain, as in 2:4; "
                "n is at least 1 and less than m"
            )

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    def of(self, inputs: int) -> int:
        """Return how many of a number of inputs remain."""
        blocks, tail = divmod(inputs, self.m)
        return blocks * self.n + min(self.n, tail)

    def best(self, scores: Tensor) -> Tensor:
        """Return a mask of the best in each block along the last dimension.

        Args:
            scores: (..., inputs). Among equal ones, the earlier are better.
        """
        inputs = scores.shape[-1]
        padded = nn.functional.pad(scores, (0, -inputs % self.m), value=-torch.inf)
        # Counting those that are better is much faster than sorting. The places of a block come
        # first, because operations along a short last dimension are slow.
        places = padded.unflatten(-1, (-1, self.m)).movedim(-1, 0).contiguous()
        better = torch.zeros_like(places, dtype=torch.int16)
        for place in range(self.m - 1):
            is_better = places[place] >= places[place + 1 :]
            better[place + 1 :] += is_better
            better[place] += (~is_better).sum(0, dtype=torch.int16)
        return (better < self.n).movedim(0, -1).flatten(-2)[..., :inputs]


def isomorphic(shapes: Mapping[str, torch.Size], sparsity: float) -> NoReturn:
    """Rank channels with those of all groups of the same structure; a `Scope` for channels.

    Every class of isomorphic groups loses the same share of its channels: those with the lowest
    scores in the class. Scores are never compared between groups that are computed, normalised and
    read by layers of different kinds. Isomorphic pruning, Fang et al. 2024, arXiv:2407.04616.

    Raises:
        Skip: the units are not channels, which recognise this function without calling it.
    """
    raise Skip("isomorphic ranking compares groups of channels, and these units are none")


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


@dataclass(frozen=True)
class Prospect:
    """A network as it would be after a pruning, which has not been carried out.

    Attributes:
        elements: the number of elements that remain of each parameter, by name; tied ones once.
        shape: the number of variables that remain of each tensor of variables, by name.
        network: builds the network, as a copy.
        masks: the masks of prunable weights that would be zeroed in place, by name.
        state: what `Units.state` would return.
    """

    elements: Mapping[str, int]
    shape: Mapping[str, int]
    network: Callable[[], nn.Module]
    masks: Kept
    state: Mapping[str, Tensor]


Cost = Callable[[Prospect], float]
"""What a network would cost after a pruning."""


@dataclass(frozen=True)
class Limit:
    """The most that the network may cost after a pruning.

    Attributes:
        kind: what is limited, a name in `harness.budget.KINDS`.
        cost: computes or measures it.
        at_most: the limit, in the unit of the cost.
    """

    kind: str
    cost: Cost
    at_most: float

    def allows(self, prospect: Prospect) -> bool:
        """Return whether a network is within the limit, to a billionth of it."""
        return self.cost(prospect) <= self.at_most * (1 + 1e-9)


@runtime_checkable
class BudgetedUnits(Units, Protocol):
    """Units that can be pruned to a budget, and that account for what a pruning left whole."""

    obeys: Collection[str]
    """The kinds of budgets that they obey, names in `harness.budget.KINDS`."""

    def select(
        self,
        scores: Scores,
        target: float,
        scope: Scope,
        floor: float = 0.0,
        *,
        rounding: int = 1,
        limit: Limit | None = None,
    ) -> Kept:
        """Select the variables to keep; see `Units.select`.

        Args:
            scores: for each variable a tensor of its shape; the highest are kept.
            target: the fraction of the dense network's prunable weights to remove; with a limit,
                the fraction of what is limited, for information.
            scope: how the target is distributed over layers.
            floor: the share of each tensor of the dense network that always stays.
            rounding: the number of channels that remain in a group is a multiple of it.
            limit: as few variables are removed as it allows, in place of the target.

        Raises:
            UnreachableSparsity: no selection reaches the target.
            UnreachableBudget: no selection is within the limit.
            ScoreError: a score is not a number.
        """

    def prospect(self, kept: Kept) -> Prospect:
        """Return the network as it would be if only these variables were kept."""

    def smallest(self, scored: Collection[str], floor: float, rounding: int) -> Kept:
        """Return what stays in any case if the variables of these tensors have scores."""

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return for each tensor how many variables remain, and how many the dense network had."""

    def why_whole(self, scored: Collection[str], floor: float, rounding: int) -> dict[str, str]:
        """Return for each tensor from which nothing is removed the reason for it."""

    def pinned(self) -> Mapping[str, str]:
        """Return why layers have outputs that cannot be removed, by the name of the layer."""


@runtime_checkable
class ClassifiedUnits(BudgetedUnits, Protocol):
    """Units of several kinds, such as attention heads and neurons."""

    def kinds(self) -> Mapping[str, str]:
        """Return the kind of each tensor's variables."""


@runtime_checkable
class PatternedUnits(Units, Protocol):
    """Units that can be pruned to a pattern, from which the sparsity follows."""

    def left_by(self, pattern: Pattern) -> int:
        """Return how many weights a pattern leaves.

        Raises:
            Skip: it fits no layer.
        """

    def misfits(self, pattern: Pattern) -> dict[str, str]:
        """Return why a pattern does not fit, for the tensors that it leaves whole."""

    def select_pattern(self, scores: Scores, pattern: Pattern) -> Kept:
        """Select the variables with the highest scores in each block of a pattern.

        Raises:
            ScoreError: a score is not a number.
        """


@runtime_checkable
class ReturningUnits(Units, Protocol):
    """Units that can return after they were removed, because they were only held at zero."""

    def exchanged(self, drop: Scores, grow: Scores, share: float) -> Kept:
        """Select what remains if a share of each tensor's units is exchanged.

        Args:
            drop: scores of the units that remain; of each tensor the lowest are removed.
            grow: scores of the others; as many of the highest return. A tensor without scores in
                either is left as it is.
            share: the fraction of the units that remain in a tensor, rounded down to a number.

        Raises:
            ScoreError: a score has the wrong shape, or is not a number.
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


class UnreachableBudget(Skip):
    """No selection is within a limit.

    Args:
        limit: the limit.
        smallest: the least that the network can cost.
        because: the reason, unless it is obvious.
    """

    def __init__(self, limit: Limit, smallest: float, because: str = "") -> None:
        asked, least = (written(limit.kind, each, 4) for each in (limit.at_most, smallest))
        super().__init__(
            f"{limit.kind}={asked} cannot be reached; the nearest that can is "
            f"{limit.kind}={least}{f': {because}' if because else ''}"
        )


def _fraction(value: float) -> str:
    """Return ten digits, or all digits if ten would round to 1."""
    text = f"{value:.10g}"
    return repr(value) if text == "1" and value < 1 else text


class ScoreError(RunFailed):
    """A criterion returned scores that cannot be ranked."""


def require_shape(scores: Scores, name: str, shape: tuple[int, ...]) -> None:
    """Check that a variable has a score of this shape.

    Raises:
        ScoreError: it has none, or one of another shape.
    """
    if name not in scores:
        raise ScoreError(f"the criterion returned no score for {name!r}; expected {shape}")
    if scores[name].shape != shape:
        raise ScoreError(
            f"the criterion returned a score of shape {tuple(scores[name].shape)} for {name!r}; "
            f"expected {shape}"
        )
