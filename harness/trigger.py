"""The contract of triggers, which decide when to prune."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from harness.scoring import Criterion
from harness.units import Units


@dataclass(frozen=True)
class Reading:
    """What a trigger reads at the end of an epoch."""

    value: float | None
    """The watched value; None as long as there is none."""
    fired: bool
    threshold: float | None = None
    """The trigger fires when the value falls below it; None if no threshold decides."""


@dataclass(frozen=True)
class Masks:
    """A request for the masks that pruning would give now, with one global threshold."""

    units: type[Units]
    criterion: Criterion
    target: float


class Trigger(Protocol):
    """Watches the training of one `harness.run.Run.train`, and says when to stop.

    Its state is part of every checkpoint and must hold everything that it remembers.
    """

    @property
    def watches(self) -> Masks | None:
        """What it wants to read: masks, or with None the prunable weights."""

    def begin(self, watched: Mapping[str, Tensor]) -> None:
        """Read the watched tensors before the first step."""

    def after_epoch(self, watched: Mapping[str, Tensor]) -> Reading:
        """Read the watched tensors at the end of an epoch."""

    def state(self) -> dict[str, Any]:
        """Return the state from which it can continue."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a state, whose tensors are on the CPU."""
