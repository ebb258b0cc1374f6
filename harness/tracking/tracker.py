"""The contract of a tracker: it shows runs in another program, such as TensorBoard.

A tracker is one class, registered as an entry point in the group ``pruning_benchmark.trackers``
under the name that ``--track`` and ``track --to`` take. Each run gets an instance of its own, which
lives in a process beside the runs. So a tracker can neither disturb a run nor let it fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.importing import load_entry_point

ENTRY_POINT_GROUP = "pruning_benchmark.trackers"
"""Where trackers are registered."""

Settings = Mapping[str, str | int | float | bool | None]
"""What was requested of a run, by name."""

PROJECT = "pruning-benchmark"
"""The name under which trackers group the runs, unless the user's environment says otherwise."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker learns about a run before it gets any values.

    Attributes:
        name: the run's name, by which the tracker finds it again.
        settings: what was requested, by name: task, pruner, seed and the like, and all settings.
        folder: where the tracker may keep files; all runs of a results folder share it.
        is_resumed: whether a tracker has shown a part of this run before.
    """

    name: str
    settings: Settings
    folder: Path
    is_resumed: bool = False


class Tracker(Protocol):
    """Shows one run. What it raises ends the tracking, with a warning, and never the run."""

    def begin(self, run: TrackedRun, /) -> None:
        """Open a run, or open it again if it is resumed."""

    def log(self, step: int, values: Mapping[str, float], /) -> None:
        """Show the values of one moment; each comes once, however often the run is resumed.

        Args:
            step: optimizer steps taken so far. It never decreases, and several calls may have the
                same.
            values: numbers by name, as in ``validation/accuracy``.
        """

    def end(self, step: int, status: str, summary: Mapping[str, float], /) -> None:
        """Close the run; `begin` may open it again if it was interrupted or failed.

        Args:
            step: the last one.
            status: that of the record, or ``interrupted``.
            summary: results and costs by name, as in ``quality/test``; empty without a result.
        """


def find_tracker(name: str) -> type[Tracker]:
    """Return the tracker of that name.

    Raises:
        RequestError: there is none, or a package that it needs is not installed.
    """
    tracker: type[Tracker] = load_entry_point(ENTRY_POINT_GROUP, "tracker", name)
    return tracker
