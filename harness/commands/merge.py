"""``merge``: runs of other results folders are taken into this one; nothing is overwritten."""

from __future__ import annotations

import argparse
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.commands import options
from harness.errors import DamagedFile, RequestError, RunFailed, warn
from harness.matrix.manifest import manifest_files
from harness.signals import Stop
from harness.storage import files
from harness.storage.checkpoint import Checkpoints
from harness.storage.files import exclusive_lock
from harness.storage.store import DETAILS, FAILURE, RECORD, Record, Store, outcome
from harness.text import number

_TAKEN, _KNOWN, _CONFLICT = "taken", "here before", "in conflict"
_FAILED, _DAMAGED = "taken that failed", "damaged"


@dataclass(frozen=True)
class _Theirs:
    """A run of another folder: done, or failed."""

    store: Store
    folder: str
    """The name of its folder, which somebody may have changed."""
    record: Record
    done: bool

    @property
    def run_id(self) -> str:
        """The run's own name, under which it is taken."""
        return str(self.record["run_id"])


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "folders", nargs="+", type=options.path, metavar="DIR", help="results folders to copy from"
    )
    options.add_results(parser, "folder to copy into")


def execute(arguments: argparse.Namespace) -> int:
    """Take what is done and not here yet; return 1 if there is anything that cannot be taken."""
    target = Store(arguments.results)
    sources = [_source(folder, target) for folder in arguments.folders]
    counts: Counter[str] = Counter()
    # All are read before any is taken: one of a newer schema leaves this folder as it was.
    found = [each for source in sources for each in _runs(source, counts)]
    for theirs in sorted(found, key=lambda each: not each.done):
        try:
            counts[_take(theirs, target)] += 1
        except (DamagedFile, RunFailed) as error:
            warn(f"{theirs.run_id} is not taken: {error}")
            counts[_DAMAGED] += 1
    for source in sources:
        _take_matrices(source, target, counts)
    told = sorted((what, count) for what, count in counts.items() if count and what)
    print(", ".join(f"{count} {what}" for what, count in told) or "no runs")
    return 1 if counts[_CONFLICT] or counts[_DAMAGED] else 0


def _source(folder: Path, target: Store) -> Store:
    """Return a folder to take runs from.

    Raises:
        RequestError: it does not exist, has no runs, or is the target itself.
    """
    if not os.path.isdir(folder):
        raise RequestError(f"results folder {folder}: does not exist")
    if folder.resolve() == target.folder.resolve():
        raise RequestError(f"results folder {folder}: is the target of the merge")
    source = Store(folder)
    if not (source.folders() or manifest_files(folder)):
        raise RequestError(f"results folder {folder}: holds no runs")
    return source


def _runs(source: Store, counts: Counter[str]) -> Iterator[_Theirs]:
    """Go through the runs of a folder; each that cannot be read is told and costs nothing else."""
    for folder in source.folders():
        try:
            if (record := source.record(folder)) is not None:
                yield _Theirs(source, folder, record, done=True)
            elif (failure := source.failure(folder)) is not None:
                yield _Theirs(source, folder, failure, done=False)
        except DamagedFile as error:
            warn(str(error))
            counts[_DAMAGED] += 1


def _take(theirs: _Theirs, target: Store) -> str:
    """Take a run unless it is here, and return what was done."""
    ours = target.record(theirs.run_id)
    if not theirs.done:
        return _take_failure(theirs, target) if ours is None else ""
    if ours is None:
        _copy(theirs, target)
        return _TAKEN
    if outcome(theirs.record) == outcome(ours):
        return _KNOWN
    first, second = (
        f"{each['status']} {number(each['quality']['test'])}" for each in (ours, theirs.record)
    )
    places = f"{first} in {target.folder}, {second} in {theirs.store.folder}"
    print(f"conflict: {theirs.run_id}: {places}")
    return _CONFLICT


def _take_failure(theirs: _Theirs, target: Store) -> str:
    """Take what failed there and was not tried here, so that no report drops it in silence."""
    if target.failure(theirs.run_id) is not None:
        return ""
    target.open_run(theirs.run_id)
    target.save_failure(theirs.record, theirs.store.failure_details(theirs.folder))
    return _FAILED


def _take_matrices(source: Store, target: Store, counts: Counter[str]) -> None:
    """Take what was asked for there, which tells what is still missing."""
    for path in manifest_files(source.folder):
        own = target.folder / path.relative_to(source.folder)
        if files.is_there(own):
            continue
        try:
            content = path.read_bytes()
        except OSError as error:
            warn(f"{path}: cannot be read: {error.strerror}")
            counts[_DAMAGED] += 1
            continue
        own.parent.mkdir(parents=True, exist_ok=True)
        files.write(own, content)


def _copy(theirs: _Theirs, target: Store) -> None:
    """Take over a run's files, its record last; what was begun of the run here is dropped.

    Raises:
        RunFailed: a file cannot be read or written.
    """
    source, own = theirs.store.folder / theirs.folder, target.open_run(theirs.run_id)
    with exclusive_lock(own, warn, Stop()):
        Checkpoints(own, interval=0).clear()
        target.forget_failure(theirs.run_id)
        try:
            for file in source.iterdir():
                if file.is_file() and file.name not in (RECORD, FAILURE, DETAILS, "lock", "owner"):
                    shutil.copy2(file, own)
            record = (source / RECORD).read_bytes()
        except OSError as error:
            raise RunFailed(f"{error.filename or own}: {error.strerror}") from error
        files.write(own / RECORD, record)
