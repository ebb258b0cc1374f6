"""The command ``merge``: copy runs of other results folders into this one; overwrite nothing."""

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
from harness.record import Record
from harness.signals import Stop
from harness.storage import files
from harness.storage.checkpoint import Checkpoints
from harness.storage.files import exclusive_lock
from harness.storage.measurements import copy_measurements
from harness.storage.store import DETAILS, FAILURE, RECORD, Store, outcome
from harness.text import number

_COPIED, _KNOWN, _CONFLICT = "copied", "already here", "in conflict"
_FAILED, _DAMAGED = "failed (record copied)", "damaged"


@dataclass(frozen=True)
class _Theirs:
    """A run of another folder that is done or failed."""

    store: Store
    folder: str
    """The name of its folder, which may have been renamed."""
    record: Record
    done: bool

    @property
    def run_id(self) -> str:
        """The run's own name, under which it is copied."""
        return self.record["run_id"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "folders", nargs="+", type=options.path, metavar="DIR", help="results folders to copy from"
    )
    options.add_results(parser, "folder to copy into")


def execute(arguments: argparse.Namespace) -> int:
    """Copy the runs that are done and not here yet; return 1 if any of them cannot be copied."""
    target = Store(arguments.results)
    sources = [_source(folder, target) for folder in arguments.folders]
    counts: Counter[str] = Counter()
    # All are read before any is copied, so a record of a newer schema leaves this folder unchanged.
    found = [each for source in sources for each in _runs(source, counts)]
    for theirs in sorted(found, key=lambda each: not each.done):
        try:
            counts[_merge(theirs, target)] += 1
        except (DamagedFile, RunFailed) as error:
            warn(f"{theirs.run_id} is not copied: {error}")
            counts[_DAMAGED] += 1
    for source in sources:
        _copy_matrices(source, target, counts)
    found_of = sorted((what, count) for what, count in counts.items() if count and what)
    print(", ".join(f"{count} {what}" for what, count in found_of) or "no runs")
    return 1 if counts[_CONFLICT] or counts[_DAMAGED] else 0


def _source(folder: Path, target: Store) -> Store:
    """Return a folder to copy runs from.

    Raises:
        RequestError: it does not exist, contains no runs, or is the target itself.
    """
    if not os.path.isdir(folder):
        raise RequestError(f"results folder {folder} does not exist")
    if folder.resolve() == target.folder.resolve():
        raise RequestError(f"results folder {folder} is the target of the merge")
    source = Store(folder)
    if not (source.folders() or manifest_files(folder)):
        raise RequestError(f"results folder {folder} contains no runs")
    return source


def _runs(source: Store, counts: Counter[str]) -> Iterator[_Theirs]:
    """Go through the runs of a folder, with a warning for each that cannot be read."""
    for folder in source.folders():
        try:
            if (record := source.record(folder)) is not None:
                yield _Theirs(source, folder, record, done=True)
            elif (failure := source.failure(folder)) is not None:
                yield _Theirs(source, folder, failure, done=False)
        except DamagedFile as error:
            warn(str(error))
            counts[_DAMAGED] += 1


def _merge(theirs: _Theirs, target: Store) -> str:
    """Copy a run unless it is here, and return what was done."""
    ours = target.record(theirs.run_id)
    if not theirs.done:
        return _copy_failure(theirs, target) if ours is None else ""
    if ours is None:
        _copy(theirs, target)
        return _COPIED
    if outcome(theirs.record) == outcome(ours):
        copy_measurements(theirs.store.folder / theirs.folder, target.folder / theirs.run_id)
        return _KNOWN
    first, second = (
        f"{each['status']} {number(each['quality']['test'])}" for each in (ours, theirs.record)
    )
    places = f"{first} in {target.folder}, {second} in {theirs.store.folder}"
    print(f"conflict: {theirs.run_id}: {places}")
    return _CONFLICT


def _copy_failure(theirs: _Theirs, target: Store) -> str:
    """Copy the record of a run that failed there and was not tried here.

    Otherwise reports would omit it silently.
    """
    if target.failure(theirs.run_id) is not None:
        return ""
    target.open_run(theirs.run_id)
    target.save_failure(theirs.record, theirs.store.failure_details(theirs.folder))
    return _FAILED


def _copy_matrices(source: Store, target: Store, counts: Counter[str]) -> None:
    """Copy the manifests of matrices, which show what is still missing."""
    for path in manifest_files(source.folder):
        own = target.folder / path.relative_to(source.folder)
        if files.is_there(own):
            continue
        try:
            content = path.read_bytes()
        except OSError as error:
            warn(f"{path} cannot be read: {error.strerror}")
            counts[_DAMAGED] += 1
            continue
        own.parent.mkdir(parents=True, exist_ok=True)
        files.write(own, content)


def _copy(theirs: _Theirs, target: Store) -> None:
    """Copy a run's files, its record last; an attempt at the same run here is dropped.

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
            copy_measurements(source, own)
            record = (source / RECORD).read_bytes()
        except OSError as error:
            raise RunFailed(f"{error.filename or own}: {error.strerror}") from error
        files.write(own / RECORD, record)
