"""The operations of a run as data: what a method asks for, and what it gets back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor, nn

from harness.scoring import Criterion, Scores
from harness.trigger import Trigger
from harness.units import Scope, Units

Learning = Callable[[nn.Module], Collection[str]]
"""Maps a model to the names of the parameters that learn."""

Penalty = Callable[[nn.Module], Tensor]
"""A term added to the training loss, a scalar."""


@runtime_checkable
class UnitPenalty(Protocol):
    """A term added to the training loss that depends on units, such as channels.

    It holds no state: the same model and units always give the same term.
    """

    @property
    def units(self) -> type[Units]:
        """The kind of units that it depends on."""

    def __call__(self, model: nn.Module, units: Units) -> Tensor:
        """Return the term, a scalar."""


class Watch(Protocol):
    """Accumulates a score per unit during one `harness.run.Run.train`.

    Its state is part of every checkpoint and must hold everything that it remembers.
    """

    @property
    def units(self) -> type[Units]:
        """The kind of units that it scores."""

    def after_backward(self, model: nn.Module, units: Units) -> None:
        """Read the gradients of one training step."""

    def scores(self) -> Scores:
        """Return the accumulated scores."""

    def state(self) -> dict[str, Any]:
        """Return the state from which it can continue."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a state, whose tensors are on the CPU."""


@dataclass(frozen=True)
class Trained:
    """What `harness.run.Run.train` returns."""

    steps: int
    fired: bool
    """Whether the trigger ended the training, rather than the cap or the budget."""
    scores: Scores | None = None
    """The scores of ``watch``."""


@dataclass(frozen=True)
class Pruned:
    """What `harness.run.Run.prune` returns."""

    sparsity: float
    """The fraction of prunable weights removed so far."""


@dataclass(frozen=True)
class Exchanged:
    """What `harness.run.Run.exchange` returns."""

    units: int
    """How many units were removed, and how many others returned."""


@dataclass(frozen=True)
class Snapshot:
    """A moment to which `harness.run.Run.rewind` can return."""

    number: int


@dataclass(frozen=True)
class Train:
    """Train to the end of the budget, or less; the arguments are those of `Run.train`."""

    verb: ClassVar[str] = "train"
    epochs: int | None
    steps: int | None
    until: Trigger | None
    at_most: int | None
    only: Learning | None
    penalty: Penalty | UnitPenalty | None
    watch: Watch | None
    observe: Mapping[str, Trigger] = field(default_factory=dict)

    @property
    def arguments(self) -> list[object]:
        """What the journal compares when the method is started again."""
        arguments: list[object] = [self.epochs, self.steps, self.until, self.at_most]
        arguments += [self.only, self.penalty, self.watch]
        return [*arguments, self.observe] if self.observe else arguments

    def longest(self, steps_per_epoch: int) -> int | None:
        """Return the largest number of steps, None for the rest of the budget."""
        epochs = [limit for limit in (self.epochs, self.at_most) if limit is not None]
        limits = [limit * steps_per_epoch for limit in epochs]
        return min([*limits, *([] if self.steps is None else [self.steps])], default=None)


@dataclass(frozen=True)
class Prune:
    """Remove units; the arguments are those of `Run.prune`."""

    verb: ClassVar[str] = "prune"
    units: type[Units]
    units_name: str
    criterion: Criterion | Scores
    targets: Sequence[float]
    scope: Scope | None
    of: str | None = None
    measured: bool = True

    @property
    def arguments(self) -> list[object]:
        """What the journal compares when the method is started again."""
        how = self.criterion if callable(self.criterion) else "watched scores"
        arguments: list[object] = [self.units_name, how, self.targets, self.scope]
        return arguments if self.of is None else [*arguments, self.of]


@dataclass(frozen=True)
class Exchange:
    """Remove units, and let as many return; the arguments are those of `Run.exchange`."""

    verb: ClassVar[str] = "exchange"
    units: type[Units]
    units_name: str
    share: float
    drop: Criterion
    grow: Criterion

    @property
    def arguments(self) -> list[object]:
        """What the journal compares when the method is started again."""
        return [self.units_name, self.share, self.drop, self.grow]


@dataclass(frozen=True)
class Release:
    """Let all removed units return; the argument is that of `Run.release`."""

    verb: ClassVar[str] = "release"
    units: type[Units]
    units_name: str

    @property
    def arguments(self) -> list[object]:
        """What the journal compares when the method is started again."""
        return [self.units_name]


@dataclass(frozen=True)
class TakeSnapshot:
    """Remember this moment."""

    verb: ClassVar[str] = "snapshot"
    arguments: ClassVar[list[object]] = []


@dataclass(frozen=True)
class Rewind:
    """Return to a moment."""

    verb: ClassVar[str] = "rewind"
    snapshot: Snapshot
    weights: bool = True

    @property
    def arguments(self) -> list[object]:
        """What the journal compares when the method is started again."""
        return [self.snapshot] if self.weights else [self.snapshot, self.weights]


Operation = Train | Prune | Exchange | Release | TakeSnapshot | Rewind
Returned = Trained | Pruned | Exchanged | Snapshot | None
