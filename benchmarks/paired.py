"""Print how far methods are from the dense network, seed by seed, and what their networks cost.

    python -m harness matrix --suite unstructured
    python -m benchmarks.paired --task digits --sparsity 0.995

Runs of one seed share initial weights and data order, so each is compared with the dense run of
the same seed: the table has the mean difference over the seeds with the 95 % interval of Student's
t. Costs are ratios to the same dense run, as the geometric mean over the seeds. They belong to the
final network, except for peak memory and training time of the run. A run that diverged has neither
metric nor costs. Times and memory are those of the machine on which most runs were measured; a
dash stands for a cost that is not known there, or whose measurement other programs disturbed.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from harness.record import COSTS
from harness.results.intervals import Interval, ratio
from harness.text import table
from reports.groups import Group, Section, sections
from reports.results import read, undisturbed, values

MAIN_COSTS = tuple(name for name, cost in COSTS.items() if cost.main)


def main() -> None:
    """Print the table of a task and sparsity, from the records of a results folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paired")
    parser.add_argument("--task", required=True)
    parser.add_argument("--sparsity", type=float, required=True)
    parser.add_argument("--profile", default="embedded")
    parser.add_argument("--results", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    section = next(
        (
            section
            for section in sections(read(arguments.results))
            if (section.task, section.profile) == (arguments.task, arguments.profile)
            and not section.setting
        ),
        None,
    )
    if section is None or section.dense is None:
        parser.exit(2, f"error: no dense run of {arguments.task} in {arguments.results}\n")
    dense = section.dense
    rows: list[tuple[str, ...]] = [("", "seeds", "mean", "to dense", "95 % interval", *MAIN_COSTS)]
    tested = dense.values.get("test", {})
    mean = f"{statistics.mean(tested.values()):.2f}" if tested else "-"
    rows.append(("dense", str(len(tested)), mean, *("",) * (2 + len(MAIN_COSTS))))
    rows += [
        (group.method, *compared(group, dense, section))
        for group in section.groups
        if group.sparsity == arguments.sparsity and group.method == group.pruner
    ]
    print(table(rows, left=1))
    print(f"  times and memory: {section.machine or 'measured on no known machine'}")


def compared(group: Group, dense: Group, section: Section) -> list[str]:
    """Return the cells of a method: seeds, mean, difference to dense, interval, ratios of costs."""
    known, reference = group.values.get("test", {}), dense.values.get("test", {})
    shared = sorted(known.keys() & reference.keys())
    seeds = f"{len(shared)} of {group.runs}" if len(shared) < group.runs else str(len(shared))
    change = group.differences.get("test")
    if change is None:
        return [seeds, *("-",) * (3 + len(MAIN_COSTS))]
    mean = statistics.mean(known[seed] for seed in shared)
    interval = "none for one seed"
    if change.low is not None and change.high is not None:
        interval = f"{change.low:+.2f} to {change.high:+.2f}"
    ratios = [ratio_of(cost, group, dense, section) for cost in MAIN_COSTS]
    return [seeds, f"{mean:.2f}", f"{change.mean:+.2f}", interval, *ratios]


def ratio_of(cost: str, group: Group, dense: Group, section: Section) -> str:
    """Return the mean ratio of a cost to dense, over the seeds without a disturbed measurement."""
    ours, theirs = (
        values(undisturbed(each.members, cost), cost, section.machine)[0] for each in (group, dense)
    )
    found: Interval | None = ratio(ours, theirs)
    return "-" if found is None else f"{found.mean:.3f}"


if __name__ == "__main__":
    main()
