"""Runs that are cut short: what happens to them, and what becomes of them afterwards."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from workbench import CPU, NOT_MEASURED, Workbench

from harness.engine.final_costs import MEASURED
from harness.engine.run_plan import run_plan
from harness.record import Record
from harness.signals import Stop
from harness.spec import Plan
from harness.storage import files
from harness.storage.store import Store

OFTEN = 0.0
"""Seconds between checkpoints: one at every chance."""
NEVER = 3600.0


class Killed(BaseException):
    """Stands for the end of the process by ``kill -9``: nothing is written any more."""


def full_disk() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_only_folder() -> OSError:
    return PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@dataclass
class Disk:
    """A disk on which one operation goes wrong, and all that follow.

    Args:
        goes_wrong: whether it is this one: its number, counted from 1, what it does (``write``,
            ``move`` or ``remove``), and the file's name.
        error: what is raised. A file that was being written is half there.
    """

    goes_wrong: Callable[[int, str, str], bool] = lambda number, operation, name: False
    error: Callable[[], BaseException] = Killed
    operations: int = 0
    is_broken: bool = False

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Let the harness work on this disk."""
        put, replace, unlink = files._put, os.replace, Path.unlink

        def broken_put(path: Path, mode: str, content: bytes) -> None:
            was_broken = self.is_broken
            if self._goes_wrong("write", path):
                if not was_broken and self.error is not read_only_folder:
                    put(path, mode, content[: len(content) // 2])
                raise self.error()
            put(path, mode, content)

        def broken_replace(source: Path, target: Path) -> None:
            if self._goes_wrong("move", target):
                raise self.error()
            replace(source, target)

        def broken_unlink(path: Path, missing_ok: bool = False) -> None:
            if self._goes_wrong("remove", path) and self.error is not full_disk:
                raise self.error()
            unlink(path, missing_ok)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "_put", broken_put)
            patch.setattr(os, "replace", broken_replace)
            patch.setattr(Path, "unlink", broken_unlink)
            yield

    def _goes_wrong(self, operation: str, path: Path) -> bool:
        self.operations += 1
        if not self.is_broken:
            self.is_broken = self.goes_wrong(self.operations, operation, path.name)
        return self.is_broken


@dataclass
class StopAfter(Stop):
    """Asks a run to stop after some steps and verbs."""

    chances: int = 0

    def __call__(self) -> bool:
        self.chances -= 1
        return self.chances < 0


@dataclass
class Attempts:
    """Attempts at one run, in one results folder; its final network is not measured."""

    bench: Workbench
    plan: Plan
    results: Path
    lines: list[str] = field(default_factory=list)
    """What was reported."""

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.results / self.plan.run_id

    @property
    def checkpoints(self) -> list[Path]:
        """The checkpoints, the newest last."""
        return sorted(self.folder.glob("checkpoint-*.pt"))

    def go(self, stop: Stop | None = None, checkpoints: float = OFTEN) -> Record:
        """Carry out the run, or go on with it."""
        unmeasured = {**dict.fromkeys(MEASURED), "reasons": dict.fromkeys(MEASURED, NOT_MEASURED)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("harness.engine.finish.final_costs", lambda *arguments: unmeasured)
            # What takes most of the time of such short runs, and changes nothing here.
            patch.setattr(os, "fsync", lambda file: None)
            patch.setattr(gc, "collect", lambda *generation: 0)
            return run_plan(
                self.plan,
                self.bench.registry,
                Store(self.results),
                CPU,
                self.lines.append,
                stop or Stop(),
                checkpoints,
            )


def attempts(bench: Workbench, pruner: str, name: str = "attempts", **request: str) -> Attempts:
    """Return attempts at a run, in a results folder of that name."""
    return Attempts(bench, bench.plan(pruner, **request), bench.folder / name)
