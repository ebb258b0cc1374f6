"""``merge``: runs of other results folders are taken into this one; nothing is overwritten."""

from __future__ import annotations

import argparse
import shutil
from collections import Counter
from pathlib import Path

from harness.durability import files
from harness.durability.checkpoint import Checkpoints
from harness.durability.lock import alone
from harness.durability.stop import Stop
from harness.errors import RequestError
from harness.matrix.plan import matrix_files
from harness.results.store import FAILURE, RECORD, Record, Store, outcome
from harness.results.summary import number

_TAKEN, _KNOWN, _CONFLICT = "taken", "here before", "in conflict"
_FAILED = "taken that failed"


def execute(arguments: argparse.Namespace) -> int:
    """Take what is done and not here yet; show what contradicts it, and return 1 if any does."""
    target = Store(arguments.results)
    sources = []
    for folder in arguments.folders:
        if not folder.is_dir():
            raise RequestError(f"results folder {folder}: there is none")
        if folder.resolve() == target.folder.resolve():
            raise RequestError(f"results folder {folder}: is the one to merge into")
        source = Store(folder)
        # All are read before any is taken: one that cannot be read leaves this folder as it was.
        sources.append((source, list(source.records())))
    counts: Counter[str] = Counter()
    for source, records in sources:
        counts.update(_take(theirs, source, target) for theirs in records)
        counts[_FAILED] += _take_failures(source, target)
        _take_matrices(source, target)
    told = sorted((what, count) for what, count in counts.items() if count)
    print(", ".join(f"{count} {what}" for what, count in told) or "no runs")
    return 1 if counts[_CONFLICT] else 0


def _take(theirs: Record, source: Store, target: Store) -> str:
    """Take a run unless it is here, and return what was done."""
    run_id = str(theirs["run_id"])
    ours = target.record(run_id)
    if ours is None:
        _copy(source.folder / run_id, target)
        return _TAKEN
    if outcome(theirs) == outcome(ours):
        return _KNOWN
    figures = [f"{each['status']} {number(each['quality']['test'])}" for each in (ours, theirs)]
    print(f"conflict: {run_id}: {figures[0]} in {target.folder}, {figures[1]} in {source.folder}")
    return _CONFLICT


def _take_failures(source: Store, target: Store) -> int:
    """Take what failed there and was not tried here, so that no report drops it in silence."""
    taken = 0
    for folder in sorted(source.folder.glob(f"*/{FAILURE}")):
        run_id = folder.parent.name
        record, details = source.failure(run_id), source.failure_details(run_id)
        known = (source.record, target.record, target.failure)
        if record is not None and not any(look(run_id) for look in known):
            target.open_run(run_id)
            target.save_failure(record, details)
            taken += 1
    return taken


def _take_matrices(source: Store, target: Store) -> None:
    """Take what was asked for there, which tells what is still missing."""
    for path in matrix_files(source.folder):
        own = target.folder / path.relative_to(source.folder)
        if not own.exists():
            own.parent.mkdir(parents=True, exist_ok=True)
            files.write(own, path.read_bytes())


def _copy(folder: Path, target: Store) -> None:
    """Take over a run's files, its record last; what was begun of the run here is dropped."""
    own = target.open_run(folder.name)
    with alone(own, print, Stop()):
        Checkpoints(own, interval=0).clear()
        target.forget_failure(folder.name)
        for file in folder.iterdir():
            if file.name not in (RECORD, "lock", "owner"):
                shutil.copy2(file, own)
        files.write(own / RECORD, (folder / RECORD).read_bytes())
