"""The contract of what decides when to prune."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True)
class Reading:
    """What a trigger saw at the end of an epoch."""

    value: float | None
    """What it watches; None while it has no value yet."""
    fired: bool


class Trigger(Protocol):
    """Watches the training of one `harness.run.Run.train` and says when to stop.

    All that it remembers is in its state, which is part of every checkpoint.
    """

    def begin(self, weights: Mapping[str, Tensor]) -> None:
        """Look at the prunable weights before the first step."""

    def after_epoch(self, weights: Mapping[str, Tensor]) -> Reading:
        """Look at the prunable weights at the end of an epoch."""

    def state(self) -> dict[str, Any]:
        """Return what is needed to go on from here."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a state, whose tensors are on the CPU."""
