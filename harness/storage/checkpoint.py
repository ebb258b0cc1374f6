"""Checkpoints and snapshots in a run's folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.errors import RunFailed
from harness.storage.files import load_state, remove, save_state

CHECKPOINTS_KEPT = 2


class Checkpoints:
    """The states from which a run can continue.

    Args:
        folder: the run's folder.
        interval: seconds between two checkpoints.
    """

    def __init__(self, folder: Path, interval: float) -> None:
        self._folder = folder
        self.times = folder / "times.json"
        """The file of measured times by which a budget of latency is kept."""
        self._interval = interval
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the interval since the last checkpoint has passed."""
        return time.monotonic() - self._last >= self._interval

    def save(self, state: Mapping[str, Any]) -> None:
        """Save a state and remove all but the last two."""
        files = self._files()
        number = int(files[-1].stem.partition("-")[2]) + 1 if files else 1
        save_state(self._folder / f"checkpoint-{number:06d}.pt", state)
        for old in self._files()[:-CHECKPOINTS_KEPT]:
            remove(old)
        self._last = time.monotonic()

    def newest(self, usable: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any] | None:
        """Return the newest state that is intact and usable, None if there is none.

        Newer checkpoints are removed, because the run continues from this one.
        """
        for file in reversed(self._files()):
            state = load_state(file)
            if state is not None and usable(state):
                return state
            remove(file)
        return None

    def save_snapshot(self, number: int, state: Mapping[str, Any]) -> None:
        """Save what the operation of that number returned for later operations."""
        save_state(self._snapshot(number), state)

    def has_snapshot(self, number: int) -> bool:
        """Return whether a snapshot exists and is intact."""
        return load_state(self._snapshot(number)) is not None

    def snapshot(self, number: int) -> dict[str, Any]:
        """Return a snapshot.

        Raises:
            RunFailed: it is missing or damaged; the next attempt notices this before it begins.
        """
        state = load_state(self._snapshot(number))
        if state is None:
            raise RunFailed(f"{self._snapshot(number)} is missing or damaged; run again")
        return state

    def clear(self) -> None:
        """Remove all checkpoints and snapshots, since the run is done."""
        for kind in ("checkpoint", "snapshot"):
            for file in self._folder.glob(f"{kind}-*.pt"):
                remove(file)

    def _snapshot(self, number: int) -> Path:
        return self._folder / f"snapshot-{number:06d}.pt"

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("checkpoint-*.pt"))
