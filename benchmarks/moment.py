"""Find the best moment to prune, and the moments that triggers would choose.

    python -m benchmarks.moment digits [--weights 0.995] [--channels 0.98] [--seeds 3] [--jobs 2]

The EarlyCroP paper claims that pruning early, when training enters the lazy regime, beats pruning
before training. This experiment checks it: for weights and for channels, in one shot and in steps,
the network is pruned with CroP at fixed moments of the budget. One dense run of each seed, with its
tangent kernel, shows when each trigger would have fired. Finished runs are not repeated. The tables
are printed, and the figure is written to the results folder (``moment-TASK.png``). A report on the
same folder shows it, too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measurement import CPU, embedded
from harness.command_line import main as harness
from harness.errors import Skip
from harness.network import build_task
from harness.record import Record
from harness.storage.store import Store
from harness.text import table
from pruners.training import norm_scales
from reports.drawing import in_style
from reports.moments import as_rows, draw, firing_rows, moments

MOMENTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
"""Shares of the budget after which the network is pruned."""

SUITE = """
title = "When to prune {task}"

[[runs]]
tasks = ["{task}"]
pruners = ["dense_observed"]
seeds = {seeds}
options = [{{kernel = "on", {observed}}}]

[[runs]]
tasks = ["{task}"]
pruners = ["dense"]
seeds = {seeds}

[[runs]]
tasks = ["{task}"]
pruners = ["earlycrop_u"]
sparsities = [{weights}]
seeds = {seeds}
options = [{{}}, {{steps = 0}}]

[[runs]]
tasks = ["{task}"]
pruners = ["earlycrop_s"]
sparsities = [{channels}]
seeds = {seeds}
options = [{{}}, {{steps = 0}}]

[[runs]]
tasks = ["{task}"]
pruners = ["earlycrop_u_fixed"]
sparsities = [{weights}]
seeds = {seeds}
options = [{moments}]

[[runs]]
tasks = ["{task}"]
pruners = ["earlycrop_s_fixed"]
sparsities = [{channels}]
seeds = {seeds}
options = [{moments}]
"""


def main() -> int:
    """Carry out the missing runs, print both tables of each task and draw its figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.moment")
    parser.add_argument("tasks", nargs="*", default=["digits"], metavar="TASK")
    parser.add_argument("--weights", type=float, default=0.995, help="sparsity, single weights")
    parser.add_argument("--channels", type=float, default=0.98, help="sparsity, channels")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    for task in arguments.tasks:
        suite = arguments.results / f"moment-{task}.toml"
        suite.parent.mkdir(parents=True, exist_ok=True)
        suite.write_text(_suite(task, arguments.weights, arguments.channels, arguments.seeds))
        words = ["matrix", "--suite", str(suite), "--jobs", str(arguments.jobs)]
        if code := harness([*words, "--results", str(arguments.results)]):
            return code
        _show(task, Store(arguments.results), arguments.results / f"moment-{task}.png")
    return 0


def _suite(task: str, weights: float, channels: float, seeds: int) -> str:
    observed = f"weight_sparsity = {weights}, channel_sparsity = {channels}"
    observed += "" if _has_scales(task) else ", scales = false"
    options = [f"{{moment = {moment}}}" for moment in MOMENTS]
    options += [f"{{moment = {moment}, steps = 0}}" for moment in MOMENTS]
    return SUITE.format(
        task=task,
        weights=weights,
        channels=channels,
        seeds=list(range(seeds)),
        observed=observed,
        moments=", ".join(options),
    )


def _has_scales(task: str) -> bool:
    """Return whether a task's network has normalisation layers, EarlyBird's gates."""
    try:
        norm_scales(build_task(embedded(task), CPU).model())
    except Skip:
        return False
    return True


def _show(task: str, store: Store, picture: Path) -> None:
    records: Sequence[Record] = [
        record for record in store.records() if record["spec"]["task"] == task
    ]
    found = moments(records)
    assert found is not None, "the matrix has just been carried out"
    quality = records[0]["quality"]
    print(table(as_rows(found, quality["goal"] == "max"), left=3))
    print(table(firing_rows(found), left=3))
    about = f"{task}, {records[0]['data']['name']}"
    with in_style():
        draw(found, quality["metric"].replace("_", " "), about, None).savefig(picture, dpi=120)
    print(picture)


if __name__ == "__main__":
    sys.exit(main())
