"""A clock that a test moves, and a lamp that uses a known power, for the tests of energy."""

from __future__ import annotations

import pytest

from harness.costs import energy


class Clock:
    """Stands in for the module ``time``."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        """Return the seconds that the test has set."""
        return self.now


class Lamp:
    """A source of energy figures that uses a constant power.

    Args:
        clock: the time.
        watts: the power.
    """

    method = "measured lamp"
    scope = "one lamp"

    def __init__(self, clock: Clock, watts: float = 100.0) -> None:
        self.clock = clock
        self.watts = watts
        self.lit_at = 0.0

    def start(self) -> None:
        """Light the lamp."""
        self.lit_at = self.clock.now

    def stop(self) -> float:
        """Return the energy since it was lit, in joules."""
        return self.watts * (self.clock.now - self.lit_at)


def measure(patch: pytest.MonkeyPatch, clock: Clock, *lamps: Lamp) -> None:
    """Let energy be measured on these lamps and with this clock."""
    patch.setattr(energy, "time", clock)
    patch.setattr(energy, "_sources", lambda device: list(lamps))
