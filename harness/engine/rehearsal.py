"""Which pruning a method will ask for first, found out without training."""

from __future__ import annotations

from collections.abc import Callable

from harness.errors import RequestError
from harness.operations import (
    Exchange,
    Exchanged,
    Operation,
    Prune,
    Returned,
    Rewind,
    Snapshot,
    TakeSnapshot,
    Train,
    Trained,
)
from harness.run import Run
from harness.spec import Spec
from harness.units import Units

_MOST_OPERATIONS = 10_000
"""Enough for any method; a program that waits for a trigger would never end."""


class _Found(Exception):
    def __init__(self, operation: Prune) -> None:
        super().__init__()
        self.operation = operation


class _Rehearsal:
    """Performs nothing: time passes, no trigger fires, and the first pruning ends it."""

    def __init__(
        self, budget: int, steps_per_epoch: int, name_of: Callable[[type[Units]], str]
    ) -> None:
        self.position = self.spent = 0
        self.name_of = name_of
        self._end = budget * steps_per_epoch
        self._steps_per_epoch = steps_per_epoch
        self._operations = 0

    def perform(self, operation: Operation) -> Returned:
        self._operations += 1
        if self._operations > _MOST_OPERATIONS:
            raise RuntimeError("the program does not end")
        match operation:
            case Prune():
                raise _Found(operation)
            case Train():
                longest, rest = operation.longest(self._steps_per_epoch), self._end - self.position
                steps = max(0, rest if longest is None else min(longest, rest))
                self.position += steps
                self.spent += steps
                return Trained(steps, False, None if operation.watch is None else {})
            case TakeSnapshot():
                return Snapshot(self.position)
            case Exchange():
                return Exchanged(0)
            case Rewind(snapshot):
                self.position = snapshot.number
        return None


def first_pruning(
    method: Callable[[Run], object],
    spec: Spec,
    budget: int,
    steps_per_epoch: int,
    sparsity: float,
    name_of: Callable[[type[Units]], str],
) -> Prune | None:
    """Return the first pruning that a method asks for; None if that depends on its training.

    Args:
        method: the method's program, with its options.
        spec: the request.
        budget: epochs of training.
        steps_per_epoch: optimizer steps in an epoch.
        sparsity: see `harness.run.Run`.
        name_of: gives the registered name of units.

    Raises:
        RequestError: the program refuses its options.
    """
    rehearsal = _Rehearsal(budget, steps_per_epoch, name_of)
    try:
        method(Run(spec, budget, steps_per_epoch, rehearsal, sparsity))
    except _Found as found:
        return found.operation
    except RequestError:
        raise
    except Exception:
        return None
    return None
