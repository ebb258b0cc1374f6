"""Following runs: each tracker gets what their journals say exactly once, despite interruptions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from harness.errors import RequestError, RunFailed
from harness.record import Record
from harness.settings import as_text
from harness.storage import files
from harness.tracking.history import read_history, stamp
from harness.tracking.tracker import Settings, TrackedRun, Tracker, find_tracker

FOLDER = "tracking"
"""The folder, within a results folder, where trackers keep their files."""


@dataclass(frozen=True)
class Followed:
    """A run that is tracked, whether or not it has begun.

    Attributes:
        folder: the run's folder.
        settings: what was requested, for `TrackedRun`.
    """

    folder: Path
    settings: Settings


def settings_of(spec: Mapping[str, Any], settings: Mapping[str, Any]) -> Settings:
    """Return what was requested, from the parts ``spec`` and ``settings`` of a record."""
    asked = {name: value for name, value in spec.items() if name not in ("overrides", "plugins")}
    return {
        name: value if isinstance(value, int | float | str | None) else as_text(value)
        for name, value in {**settings, **asked}.items()
    }


def followed_run(record: Record, folder: Path) -> Followed:
    """Return a run that has a record, with its folder."""
    return Followed(folder, settings_of(record["spec"], record["settings"]))


class Follower:
    """Passes what is new in one run to one tracker.

    How much has been passed on is noted beside the tracker's files. So a run that is resumed
    continues its curves, and a run that was passed on to its end stays as it is.

    Args:
        make: makes the tracker.
        run: the run.
        folder: where the tracker keeps its files.
    """

    def __init__(self, make: Callable[[], Tracker], run: Followed, folder: Path) -> None:
        self._make, self._run, self._folder = make, run, folder
        self._note = folder / f"{run.folder.name}.json"
        self._lock = FileLock(folder / f"{run.folder.name}.lock")
        self._tracker: Tracker | None = None
        self._stamp: object = None
        self.told, self.is_over = self._read_note()

    def catch_up(self, *, last: bool) -> None:
        """Pass on what is new.

        Args:
            last: whether this is the last call, which closes the run in any state.
        """
        if self.is_over or (self._stamp == (now := stamp(self._run.folder)) and not last):
            return
        self._stamp = now
        try:
            history = read_history(self._run.folder)
        except (RequestError, RunFailed):  # the run itself reports it
            return
        ends = history.is_final or (last and bool(history.status or self._tracker))
        if not (ends or len(history.points) > self.told):
            return
        tracker = self._tracker or self._begin()
        if tracker is None:
            return
        for point in history.points[self.told :]:
            tracker.log(point.step, point.values)
            self.told += 1
            self._write_note()
        if ends or last:
            step = history.points[-1].step if history.points else 0
            tracker.end(step, history.status or "interrupted", history.summary or {})
            self.is_over = history.summary is not None
            self._write_note()
            self._lock.release()
            self._tracker = None

    def _begin(self) -> Tracker | None:
        """Return the tracker, which has opened the run; None if another process is following it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            self.is_over = True
            return None
        self.told, self.is_over = self._read_note()
        if self.is_over:
            self._lock.release()
            return None
        name, is_resumed = self._run.folder.name, files.is_there(self._note)
        self._tracker = self._make()
        self._tracker.begin(TrackedRun(name, self._run.settings, self._folder, is_resumed))
        self._write_note()
        return self._tracker

    def _read_note(self) -> tuple[int, bool]:
        try:
            note = json.loads(self._note.read_bytes())
            return int(note["points"]), bool(note["over"])
        except (OSError, ValueError, TypeError, KeyError):
            return 0, False

    def _write_note(self) -> None:
        note = {"points": self.told, "over": self.is_over}
        files.write_quickly(self._note, json.dumps(note).encode())


class Following:
    """Several trackers that follow several runs. One that fails is left out from then on.

    Args:
        names: of the trackers.
        runs: the runs.
        results: the results folder.
        complain: receives a line about a tracker that has failed.

    Raises:
        RequestError: a tracker is not known, or not installed.
    """

    def __init__(
        self,
        names: Iterable[str],
        runs: Sequence[Followed],
        results: Path,
        complain: Callable[[str], None],
    ) -> None:
        self._complain = complain
        self._followers = {
            name: [Follower(tracker, run, results / FOLDER / name) for run in runs]
            for name, tracker in [(name, find_tracker(name)) for name in dict.fromkeys(names)]
        }

    def catch_up(self, *, last: bool = False) -> None:
        """Pass what is new to all trackers; the last time, close all runs."""
        for name, followers in list(self._followers.items()):
            try:
                for follower in followers:
                    follower.catch_up(last=last)
            except (Exception, SystemExit) as error:  # a tracker runs any code
                what = " ".join(f"{type(error).__name__}: {error}".split())
                self._complain(f"tracker {name!r} has failed, and is not used any further: {what}")
                del self._followers[name]
            else:
                self._followers[name] = [each for each in followers if not each.is_over]
