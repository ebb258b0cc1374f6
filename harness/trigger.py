"""The contract of what decides when to prune."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from harness.scoring import Criterion
from harness.units import Units


@dataclass(frozen=True)
class Reading:
    """What a trigger saw at the end of an epoch."""

    value: float | None
    """What it watches; None while it has no value yet."""
    fired: bool
    threshold: float | None = None
    """It fires when the value is below; None where no such number decides."""


@dataclass(frozen=True)
class Masks:
    """What pruning would keep if it were done now, with one threshold for all."""

    units: type[Units]
    criterion: Criterion
    target: float


class Trigger(Protocol):
    """Watches the training of one `harness.run.Run.train` and says when to stop.

    All that it remembers is in its state, which is part of every checkpoint.
    """

    @property
    def watches(self) -> Masks | None:
        """What it is shown: masks, or with None the prunable weights."""

    def begin(self, watched: Mapping[str, Tensor]) -> None:
        """Look at it before the first step."""

    def after_epoch(self, watched: Mapping[str, Tensor]) -> Reading:
        """Look at it at the end of an epoch."""

    def state(self) -> dict[str, Any]:
        """Return what is needed to go on from here."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a state, whose tensors are on the CPU."""
