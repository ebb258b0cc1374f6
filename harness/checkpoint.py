"""Checkpoints and snapshots in a run's folder."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.files import load_state, save_state

CHECKPOINTS_KEPT = 2


class Checkpoints:
    """The states that a run can go on from.

    Args:
        folder: the run's folder.
        interval: seconds between two checkpoints.
    """

    def __init__(self, folder: Path, interval: float) -> None:
        self._folder = folder
        self._interval = interval
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the last checkpoint is long enough ago."""
        return time.monotonic() - self._last >= self._interval

    def save(self, state: Mapping[str, Any]) -> None:
        """Save a state and drop all but the last two."""
        files = self._files()
        number = int(files[-1].stem.partition("-")[2]) + 1 if files else 1
        save_state(self._folder / f"checkpoint-{number:06d}.pt", state)
        for old in self._files()[:-CHECKPOINTS_KEPT]:
            old.unlink()
        self._last = time.monotonic()

    def newest(self) -> dict[str, Any] | None:
        """Return the newest state that is not damaged, None if there is none; drop damaged ones."""
        for file in reversed(self._files()):
            state = load_state(file)
            if state is not None:
                return state
            file.unlink()
        return None

    def save_snapshot(self, number: int, state: Mapping[str, Any]) -> None:
        """Save what `harness.run.Run.rewind` will bring back."""
        save_state(self._snapshot(number), state)

    def snapshot(self, number: int) -> dict[str, Any]:
        """Return a snapshot.

        Raises:
            FileNotFoundError: it was lost or is damaged.
        """
        state = load_state(self._snapshot(number))
        if state is None:
            raise FileNotFoundError(self._snapshot(number))
        return state

    def clear(self) -> None:
        """Remove all states: the run is done."""
        for file in self._folder.glob("*.pt"):
            if re.fullmatch(r"(checkpoint|snapshot)-\d+\.pt", file.name):
                file.unlink()

    def _snapshot(self, number: int) -> Path:
        return self._folder / f"snapshot-{number:06d}.pt"

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("checkpoint-*.pt"))
