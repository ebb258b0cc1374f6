"""The command ``status``: progress of the runs of a results folder, wherever they run."""

from __future__ import annotations

import argparse
import json
from typing import Any

from harness.commands import options
from harness.errors import RequestError, warn
from harness.matrix.dispatch import Tally
from harness.matrix.manifest import MatrixManifest, manifest_files, read_manifest
from harness.matrix.state import (
    counted,
    counts,
    find_states,
    how_far,
    left_out_lines,
    outcome_lines,
    reasons,
    states_in,
    unmeasured_lines,
)
from harness.storage.progress import read_progress
from harness.storage.store import Store

JSON_HELP = """\
--json prints one object. "matrices" is an array; each has "name", "command", "counts" by status,
"unmeasured" (how many networks are still to be measured), "runs" and "left_out" (reasons by run).
"other_runs" belong to no matrix. "again" are runs that --again has not completed yet; "damaged"
lists matrix files that cannot be read. A run has a "status" (done, collapsed, diverged, failed,
skipped, damaged, running, interrupted or waiting) and a "reason", which may be null. A running one
has "progress" after its first epoch: "epoch", "epochs", "metric", "validation" and "seconds_left",
of which the last two may be null. If its network is still to be measured, "measured" is false.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.epilog = JSON_HELP
    options.add_json(parser, "print JSON instead")
    options.add_results(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Print the state of each matrix in the folder, and of the runs of no matrix."""
    store = Store(arguments.results)
    matrices, damaged = _matrices(store)
    asked_for = {run_id for matrix in matrices for run_id in matrix.runs}
    others = [run_id for run_id in store.folders() if run_id not in asked_for]
    again = store.again().folders()
    if not (matrices or others or again):
        raise RequestError(damaged[0] if damaged else store.why_empty())
    for line in damaged:
        warn(line)
    if arguments.json:
        print(json.dumps(_as_object(store, matrices, others, again, damaged), indent=1))
        return 0
    parts = [_describe(matrix, store) for matrix in matrices]
    if others:
        parts.append(_describe_runs("outside any matrix", others, store))
    if again:
        parts.append(_describe_runs("being repeated", again, store.again()))
    print("\n\n".join(parts))
    return 0


def _matrices(store: Store) -> tuple[list[MatrixManifest], list[str]]:
    """Return the matrices, and an error message for each that cannot be read."""
    matrices, damaged = [], []
    for path in manifest_files(store.folder):
        try:
            matrices.append(read_manifest(path))
        except RequestError as error:
            damaged.append(str(error))
    return matrices, damaged


def _describe(matrix: MatrixManifest, store: Store) -> str:
    tally = find_states(matrix.runs, store)
    lines = [f"{matrix.name}: {counted(tally)}", *_lines(tally, store)]
    lines += left_out_lines(matrix.left_out)
    ended = tally.count()
    if tally.waiting + ended["failed"] + ended["interrupted"]:
        lines.append(f"  to continue: {matrix.command}")
    return "\n".join(lines)


def _describe_runs(which: str, runs: list[str], store: Store) -> str:
    tally = find_states(runs, store)
    return "\n".join([counted(tally, which), *_lines(tally, store)])


def _lines(tally: Tally, store: Store) -> list[str]:
    """Return lines that name the runs that are running, have no result or are not measured."""
    lines = []
    for run_id in tally.running:
        progress = read_progress(store.folder / run_id)
        lines.append(f"  running: {run_id}{'' if progress is None else f': {how_far(progress)}'}")
    lines += outcome_lines(tally, "failed", "damaged", "skipped", "interrupted")
    return [*lines, *unmeasured_lines(tally)]


def _as_object(
    store: Store,
    matrices: list[MatrixManifest],
    others: list[str],
    again: list[str],
    damaged: list[str],
) -> dict[str, Any]:
    parts = []
    for matrix in matrices:
        runs = states_in(store, matrix.runs)
        parts.append(
            {
                "name": matrix.name,
                "command": matrix.command,
                "counts": counts(runs),
                "unmeasured": sum(state.get("measured") is False for state in runs.values()),
                "runs": runs,
                "left_out": reasons(matrix.left_out),
            }
        )
    return {
        "matrices": parts,
        "other_runs": states_in(store, others),
        "again": states_in(store.again(), again),
        "damaged": damaged,
    }
