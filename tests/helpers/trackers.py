"""Trackers for tests: one that keeps a diary in a file, and some that fail."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from harness.tracking.tracker import ENTRY_POINT_GROUP, TrackedRun
from tests.helpers.packages import install


class Diary:
    """Writes what it is told into a file beside its notes, one line each."""

    def begin(self, run: TrackedRun) -> None:
        self._path = run.folder / f"{run.name}.diary"
        self._write("resumed" if run.is_resumed else "begun", dict(run.settings))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._write(step, dict(values))

    def end(self, step: int, status: str, summary: Mapping[str, float]) -> None:
        self._write(status, dict(summary))

    def _write(self, what: object, values: dict[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(f"{json.dumps([what, values])}\n")


class Forgetful(Diary):
    """Fails when it has been told of three moments."""

    told: ClassVar[int] = 0

    def log(self, step: int, values: Mapping[str, float]) -> None:
        type(self).told += 1
        if self.told > 3:
            raise ConnectionError("the server\nis gone")
        super().log(step, values)


class Rude(Diary):
    """Ends the process."""

    def begin(self, run: TrackedRun) -> None:
        os._exit(3)


class Slow(Diary):
    """Never comes to an end."""

    def end(self, step: int, status: str, summary: Mapping[str, float]) -> None:
        while True:
            pass


def read_diary(folder: Path) -> list[tuple[Any, dict[str, Any]]]:
    """Return what was written into the only diary in a folder."""
    (path,) = folder.glob("*.diary")
    return [(what, values) for what, values in map(json.loads, path.read_text().splitlines())]


def steps_in(diary: list[tuple[Any, dict[str, Any]]]) -> list[int]:
    """Return the steps of the moments in a diary."""
    return [what for what, _ in diary if isinstance(what, int)]


def register_trackers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process, and those that it starts, find these trackers by their names."""
    names = {each.__name__.lower(): each for each in (Diary, Forgetful, Rude, Slow)}
    points = {name: f"{__name__}:{each.__name__}" for name, each in names.items()}
    points["absent"] = "no_such_package:Tracker"
    package = {"name": "diaries", "version": "1", "entry-points": {ENTRY_POINT_GROUP: points}}
    installed = folder / "installed"
    installed.mkdir()
    install(package, installed)
    monkeypatch.syspath_prepend(installed)
