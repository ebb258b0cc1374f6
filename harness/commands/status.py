"""``status``: where the runs of a results folder are, whoever carries them out."""

from __future__ import annotations

import argparse
from collections.abc import Collection

from harness.durability.lock import is_held
from harness.errors import RequestError
from harness.matrix.board import counted
from harness.matrix.dispatch import Tally
from harness.matrix.executor import Outcome
from harness.matrix.plan import Written, by_reason, first_of, matrix_files, read_matrix, reasons
from harness.results.store import Store


def execute(arguments: argparse.Namespace) -> int:
    """Print what is known of every matrix that was begun in the folder, and of other runs."""
    store = Store(arguments.results)
    matrices = [read_matrix(path) for path in matrix_files(store.folder)]
    in_some = {run_id for matrix in matrices for run_id in matrix.runs}
    others = [path.name for path in store.folder.glob("*-*/") if path.name not in in_some]
    if not matrices and not others:
        raise RequestError(f"results folder {store.folder}: holds no runs")
    parts = [_describe(matrix, store) for matrix in matrices]
    if others:
        parts.append(_describe(Written("other runs", "", {run: {} for run in others}, {}), store))
    print("\n\n".join(parts))
    return 0


def _describe(matrix: Written, store: Store) -> str:
    tally = _look(matrix.runs, store)
    lines = [f"{matrix.name}: {counted(tally)}"]
    lines += [f"  at work: {run_id}" for run_id in tally.at_work]
    for status in ("failed", "skipped"):
        ended = {
            run_id: outcome.reason or ""
            for run_id, outcome in tally.outcomes.items()
            if outcome.status == status
        }
        for why, runs in by_reason(ended).items():
            lines.append(f"  {status}: {first_of(runs)}: {why}")
    for why, runs in by_reason(reasons(matrix.left_out)).items():
        lines.append(f"  left out: {first_of(runs)}: {why}")
    if matrix.command and tally.waiting + tally.count()["failed"]:
        lines.append(f"  to go on: {matrix.command}")
    return "\n".join(lines)


def _look(runs: Collection[str], store: Store) -> Tally:
    """Return where each run is, as far as the folder tells."""
    tally = Tally(len(runs))
    for run_id in runs:
        known = store.record(run_id)
        if known is None and is_held(store.folder / run_id):
            tally.at_work[run_id] = ""
        elif known := known or store.failure(run_id):
            tally.settle(run_id, Outcome(known["status"], known["reason"]))
    return tally
