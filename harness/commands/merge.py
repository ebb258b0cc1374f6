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
from harness.results.store import RECORD, Store, outcome
from harness.results.summary import number

_TAKEN, _KNOWN, _CONFLICT = "taken", "here before", "in conflict"


def execute(arguments: argparse.Namespace) -> int:
    """Take what is done and not here yet; show what contradicts it, and return 1 if any does."""
    target = Store(arguments.results)
    counts: Counter[str] = Counter()
    for folder in arguments.folders:
        if not folder.is_dir():
            raise RequestError(f"results folder {folder}: there is none")
        if folder.resolve() == target.folder.resolve():
            raise RequestError(f"results folder {folder}: is the one to merge into")
        source = Store(folder)
        for run_id in source.run_ids():
            counts[_take(run_id, source, target)] += 1
    print(", ".join(f"{count} {what}" for what, count in sorted(counts.items())) or "no runs")
    return 1 if counts[_CONFLICT] else 0


def _take(run_id: str, source: Store, target: Store) -> str:
    """Take a run unless it is here, and return what was done."""
    theirs, ours = source.record(run_id), target.record(run_id)
    assert theirs is not None
    if ours is None:
        _copy(source.folder / run_id, target)
        return _TAKEN
    if outcome(theirs) == outcome(ours):
        return _KNOWN
    figures = [f"{each['status']} {number(each['quality']['test'])}" for each in (ours, theirs)]
    print(f"conflict: {run_id}: {figures[0]} in {target.folder}, {figures[1]} in {source.folder}")
    return _CONFLICT


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
