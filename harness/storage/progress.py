"""How far a run is: a small file in its folder, which each epoch replaces.

It is no part of the record and may be lost or out of date: only displays read it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.storage.files import UNFINISHED

FILE = "progress.json"


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        epoch: epochs of training spent, rewound ones included.
        epochs: the budget.
        metric: name of the task's metric.
        validation: its last value on the validation data; None if it is not finite.
        ends: when the training is expected to end, in seconds since 1970; None if that is unknown.
    """

    epoch: int
    epochs: int
    metric: str
    validation: float | None
    ends: float | None

    @property
    def seconds_left(self) -> float | None:
        """How long the training is expected to go on."""
        return None if self.ends is None else max(0.0, self.ends - time.time())


class ProgressFile:
    """The file of one run.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._began: tuple[float, int] | None = None

    def begin(self, spent: int) -> None:
        """Note when this process began to train, unless it did so before.

        Args:
            spent: steps taken by then.
        """
        if self._began is None:
            self._began = time.monotonic(), spent

    def write(
        self, epoch: int, epochs: int, metric: str, validation: float, spent: int, left: int | None
    ) -> None:
        """Replace the file; if that is not possible, the old one stays.

        Args:
            epoch: epochs of training spent.
            epochs: the budget.
            metric: name of the task's metric.
            validation: its last value.
            spent: steps taken so far.
            left: steps still to take; None if that is unknown.
        """
        finite = validation if math.isfinite(validation) else None
        ends = self._end(spent, left)
        content = json.dumps(asdict(Progress(epoch, epochs, metric, finite, ends)))
        unfinished = self._path.with_name(self._path.name + UNFINISHED)
        # Not `files.write`, which waits for the disk and fails the run when the disk is full.
        with contextlib.suppress(OSError):
            unfinished.write_text(content, encoding="utf-8")
            os.replace(unfinished, self._path)

    def _end(self, spent: int, left: int | None) -> float | None:
        if left is None or self._began is None:
            return None
        began, before = self._began
        if spent <= before:
            return None
        return time.time() + left * (time.monotonic() - began) / (spent - before)

    def remove(self) -> None:
        """Remove the file, since the run has ended."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def read_progress(folder: Path) -> Progress | None:
    """Return how far a run is; None if its folder does not say so."""
    try:
        found = json.loads((folder / FILE).read_bytes())
        ends, validation = found["ends"], found["validation"]
        return Progress(
            int(found["epoch"]),
            int(found["epochs"]),
            str(found["metric"]),
            None if validation is None else float(validation),
            None if ends is None else float(ends),
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
