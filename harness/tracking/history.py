"""What a run has done so far, as numbers over the steps: from its journal, or from its record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from harness.record import COSTS, Record
from harness.results.frame import leaves
from harness.results.measured import awaits_measurement, with_measurement
from harness.storage.journal import read_journal
from harness.storage.progress import EPOCHS, epochs_underway
from harness.storage.store import FAILURE, RECORD, Store

JOURNAL = "journal.jsonl"


@dataclass(frozen=True)
class Point:
    """Numbers at one moment, by name, and the optimizer steps taken by then."""

    step: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class History:
    """What a run has done so far.

    Attributes:
        points: the numbers over the steps. Later histories of the run begin with the same points.
        status: how it ended; None if it has not ended.
        summary: its results and costs; None if it has no record.
        is_final: whether nothing more will be added.
    """

    points: list[Point]
    status: str | None = None
    summary: Mapping[str, float] | None = None
    is_final: bool = False


def read_history(folder: Path) -> History:
    """Read what a run has done so far, in whatever state it is.

    Args:
        folder: the run's folder, which need not exist yet.

    Raises:
        RequestError: its record cannot be read.
        RunFailed: its journal cannot be read.
    """
    store = Store(folder.parent)
    record = store.record(folder.name)
    if record is not None:
        return History(
            list(_points(cast(list[Mapping[str, Any]], record["events"]))),
            record["status"],
            _summary(with_measurement(record, folder)),
            not awaits_measurement(record, folder),
        )
    entries = read_journal(folder / JOURNAL)
    underway = {"epochs": epochs_underway(folder, len(entries))}
    failure = store.failure(folder.name)
    return History(
        list(_points([*(entry.event for entry in entries), underway])),
        None if failure is None else failure["status"],
    )


def stamp(folder: Path) -> tuple[object, ...]:
    """Return a value that changes whenever the run has written something."""
    return tuple(
        _stamp(folder / name) for name in (JOURNAL, EPOCHS, RECORD, FAILURE, "measurements")
    )


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _points(events: Iterable[Mapping[str, Any]]) -> Iterator[Point]:
    for event in events:
        for epoch in event.get("epochs", ()):
            values = {name: value for name, value in epoch.items() if name != "spent"}
            yield Point(epoch["spent"], _numbers(values))
        if "sparsity" in event:
            yield Point(event["spent"], {"sparsity": event["sparsity"]})


def _summary(record: Record) -> dict[str, float]:
    """Return the results and costs of a record, by names such as ``cost/step_ms``."""
    cost = {name: record["cost"].get(name) for name in COSTS}
    return _numbers({"quality": record["quality"], "sparsity": record["sparsity"], "cost": cost})


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        place.replace(".", "/"): value
        for place, value in leaves(values, "")
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
