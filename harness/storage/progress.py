"""How far a run is: small files in its folder, which are removed when it is done.

One says in a few numbers how far the run is; each epoch replaces it. The other has the epochs of
the training underway, which the journal has only when that training has ended. Neither is part of
the record, and both may be lost or out of date: only displays and trackers read them.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.storage import files
from harness.storage.journal import plain

FILE, EPOCHS = "progress.json", "epochs.jsonl"
"""Names of the files in a run's folder."""


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
    """The files of one run. What cannot be written is lost, and the run goes on.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._epochs = folder / FILE, folder / EPOCHS
        self._began: tuple[float, int] | None = None
        self._lines: list[str] = []
        """What is still to be written to the file of epochs."""
        self._is_new = True

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
        """Replace the file that says how far the run is.

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
        with contextlib.suppress(OSError):
            files.write_quickly(self._path, content.encode())

    def _end(self, spent: int, left: int | None) -> float | None:
        if left is None or self._began is None:
            return None
        began, before = self._began
        if spent <= before:
            return None
        return time.time() + left * (time.monotonic() - began) / (spent - before)

    def begin_training(self, number: int, epochs: Iterable[Mapping[str, Any]]) -> None:
        """Note that a training begins, or goes on.

        Args:
            number: its place among the operations of the run, from 0.
            epochs: those that an earlier attempt has saved.
        """
        self._lines = [json.dumps({"operation": number}), *map(_line, epochs)]
        self._is_new = True

    def add_epoch(self, epoch: Mapping[str, Any]) -> None:
        """Add an epoch of the training underway."""
        self._lines.append(_line(epoch))
        content = "".join(f"{line}\n" for line in self._lines).encode()
        with contextlib.suppress(OSError):
            if self._is_new:
                files.write_quickly(self._epochs, content)
            else:
                with self._epochs.open("ab") as file:
                    file.write(content)
            self._lines, self._is_new = [], False

    def remove(self) -> None:
        """Remove the files, since the run has ended."""
        for path in (self._path, self._epochs):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _line(epoch: Mapping[str, Any]) -> str:
    return json.dumps(plain(epoch))


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


def epochs_underway(folder: Path, number: int) -> list[dict[str, Any]]:
    """Return the epochs of a training that has not ended, as far as they are known.

    Args:
        folder: the run's folder.
        number: how many operations the journal has, which is the place of the training.
    """
    try:
        lines = (folder / EPOCHS).read_text(encoding="utf-8").splitlines(keepends=True)
        documents = [json.loads(line) for line in lines if line.endswith("\n")]
    except (OSError, ValueError, RecursionError):
        return []
    if not documents or documents[0] != {"operation": number}:
        return []
    return documents[1:]
