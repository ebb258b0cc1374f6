"""A run as a pruning method sees it: all that a method may do, and all that it may know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from numbers import Integral, Real
from typing import Protocol

from harness.errors import RunFailed
from harness.operations import (
    Exchange,
    Exchanged,
    Learning,
    Operation,
    Penalty,
    Prune,
    Pruned,
    Release,
    Returned,
    Rewind,
    Snapshot,
    TakeSnapshot,
    Train,
    Trained,
    UnitPenalty,
    Watch,
)
from harness.scoring import Criterion, Scores
from harness.spec import Spec
from harness.trigger import Trigger
from harness.units import Scope, Units

__all__ = [
    "Exchanged",
    "Learning",
    "Penalty",
    "Pruned",
    "Run",
    "Snapshot",
    "Trained",
    "UnitPenalty",
    "Watch",
]


class Performer(Protocol):
    """Performs the operations of a run; `harness.engine.replay.Replay` is the only one."""

    @property
    def position(self) -> int:
        """See `Run.position`."""

    @property
    def spent(self) -> int:
        """See `Run.spent`."""

    def perform(self, operation: Operation) -> Returned:
        """Perform an operation, or recall what it returned in an earlier attempt."""

    def name_of(self, units: type[Units]) -> str:
        """Return the name under which units are registered."""


class Run:
    """What a method may do, and all that it may know.

    A method is a program over its run. Its operations are `train`, `prune`, `exchange`, `release`,
    `snapshot` and `rewind`. It never gets the model, the optimizer or test data. When an
    interrupted run is resumed, its method starts again from the top: operations that a checkpoint
    covers do nothing and return what they returned before.

    Attributes:
        spec: the request.
        sparsity: the fraction to remove: of the prunable weights, or, in a run with a budget, of
            what the budget limits. A budget of ``macs=0.25`` is a sparsity of 0.75.
        budget: epochs of training, equal for every method.
        steps_per_epoch: optimizer steps in an epoch.
    """

    def __init__(
        self,
        spec: Spec,
        budget: int,
        steps_per_epoch: int,
        performer: Performer,
        sparsity: float | None = None,
    ) -> None:
        self.spec = spec
        self.sparsity = spec.sparsity if sparsity is None else sparsity
        self.budget = budget
        self.steps_per_epoch = steps_per_epoch
        self._performer = performer

    @property
    def position(self) -> int:
        """Steps since the start of the schedule and of the data; `rewind` takes it back."""
        return self._performer.position

    @property
    def spent(self) -> int:
        """Steps taken so far; never taken back."""
        return self._performer.spent

    def train(
        self,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        until: Trigger | None = None,
        at_most: int | None = None,
        only: Learning | None = None,
        penalty: Penalty | UnitPenalty | None = None,
        watch: Watch | None = None,
        observe: Mapping[str, Trigger] | None = None,
    ) -> Trained:
        """Train to the end of the budget, or less.

        Args:
            epochs: how long, in epochs.
            steps: how long, in steps.
            until: a trigger, read after each epoch; training ends when it fires.
            at_most: a cap on ``until``, in epochs.
            only: picks the parameters that learn; all others keep their values.
            penalty: a term added to the loss.
            watch: accumulates scores, which are returned.
            observe: triggers by name that are read and recorded, and end nothing.

        Raises:
            RunFailed: a limit is negative or not a whole number.
        """
        for name, limit in (("epochs", epochs), ("steps", steps), ("at_most", at_most)):
            if limit is not None and not (isinstance(limit, Integral) and limit >= 0):
                raise RunFailed(
                    f"run.train({name}={limit!r}) is not 0, 1, 2 ... {name.replace('_', ' ')}"
                )
        returned = self._performer.perform(
            Train(epochs, steps, until, at_most, only, penalty, watch, observe or {})
        )
        assert isinstance(returned, Trained)
        return returned

    def prune(
        self,
        units: type[Units],
        criterion: Criterion | Scores,
        target: float | Sequence[float],
        scope: Scope | None = None,
        of: str | None = None,
        *,
        measured: bool = True,
    ) -> Pruned:
        """Remove units until the fraction ``target`` of the dense network is removed.

        It is a fraction of the prunable weights, a sparsity. In a run with a budget it is a
        fraction of what the budget limits, such as multiply-accumulates.

        Args:
            units: what to remove, such as ``Weights``.
            criterion: scores the units; or scores that `train` has watched.
            target: a sparsity, or several in increasing order; the units are scored again for each.
            scope: how the target is distributed over the layers (uniform, ERK ...); None for one
                global threshold.
            of: the cost of which the target is a fraction, a name in `harness.budget.KINDS`; None
                for that of the run.
            measured: whether to measure the gradient flow and write a receipt for the record. A
                method that prunes every few steps does so for the last pruning only.

        Raises:
            RunFailed: there is no target, one is not a fraction, or they decrease.
        """
        name = self._performer.name_of(units)
        returned = self._performer.perform(
            Prune(units, name, criterion, _targets(target), scope, of, measured)
        )
        assert isinstance(returned, Pruned)
        return returned

    def exchange(
        self, units: type[Units], share: float, *, drop: Criterion, grow: Criterion
    ) -> Exchanged:
        """Remove a share of each tensor's units, and let as many others of it return.

        Units that return start at zero, with fresh optimizer state. Units that were just removed
        may return at once; they keep their values.

        Args:
            units: what to exchange; channels that are cut cannot return.
            share: the fraction of the units that remain in each tensor, rounded down to a number.
            drop: scores the units that remain; the lowest are removed.
            grow: scores all units; the highest of those that do not remain return. It sees the
                gradient of removed weights by ``scoring.gradient(dense=True)``.

        Raises:
            RunFailed: the share is not a fraction, or these units cannot return.
        """
        if not (isinstance(share, Real) and 0 <= share <= 1):
            raise RunFailed(
                f"run.exchange(share={share!r}) is outside [0, 1]: it is the fraction to exchange"
            )
        name = self._performer.name_of(units)
        returned = self._performer.perform(Exchange(units, name, float(share), drop, grow))
        assert isinstance(returned, Exchanged)
        return returned

    def release(self, units: type[Units]) -> None:
        """Let all removed units return; they start at zero, with fresh optimizer state.

        Raises:
            RunFailed: these units cannot return.
        """
        self._performer.perform(Release(units, self._performer.name_of(units)))

    def snapshot(self) -> Snapshot:
        """Remember this moment: weights, buffers, optimizer, place in schedule and data."""
        returned = self._performer.perform(TakeSnapshot())
        assert isinstance(returned, Snapshot)
        return returned

    def rewind(self, snapshot: Snapshot, *, weights: bool = True) -> None:
        """Return to a moment; what is pruned stays pruned.

        Args:
            snapshot: the moment.
            weights: whether the weights return to it, too. If not, they and the optimizer keep
                their state, and only the learning-rate schedule and the data start again there.
        """
        self._performer.perform(Rewind(snapshot, weights))


def _targets(target: object) -> list[float]:
    """Return the sparsities to reach, one after the other.

    Raises:
        RunFailed: there is none, one is not a fraction, or they decrease.
    """
    call = f"run.prune(..., {target!r})"
    targets = [target] if isinstance(target, Real) else target
    if not isinstance(targets, Sequence) or isinstance(targets, str):
        raise RunFailed(f"{call}: a target is a number, or a list of numbers")
    if not targets:
        raise RunFailed(f"{call}: there is no target in the list")
    for each in targets:
        if not (isinstance(each, Real) and 0 <= float(each) < 1):
            raise RunFailed(
                f"{call}: {each!r} is outside [0, 1): it is the fraction to remove, as in 0.98"
            )
    values = [float(each) for each in targets]
    for before, after in pairwise(values):
        if after < before:
            raise RunFailed(
                f"{call}: {after!r} comes after {before!r}, and removed units do not return"
            )
    return values
