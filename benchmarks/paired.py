"""How far methods are from the dense network, seed by seed, and what their networks cost.

    python -m harness matrix --suite unstructured
    python -m benchmarks.paired --task digits --sparsity 0.995

Runs of one seed share initial weights and data order, so their difference to the dense run of the
same seed is what counts: its mean over the seeds, with the 95 % interval of Student's t. Costs are
ratios to the same dense run, in the geometric mean over the seeds: of the final network, except
for the peak memory and the training time, which are of the whole run. A run that diverged has
neither a metric nor costs. Times and memory are those of one machine, on which most dense runs were
measured; a dash stands where a cost is not known there, or other work disturbed its measurement.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.record import Record
from harness.results.comparable import (
    DEPENDS_ON_MACHINE,
    FIRST_ENGINE,
    disturbed,
    machine,
    not_comparable,
)
from harness.results.intervals import Interval, difference, ratio
from harness.storage.store import Store
from harness.text import table

COSTS: Mapping[str, str] = {
    "step": "step_ms",
    "inference": "inference_ms",
    "step memory": "peak_step_bytes",
    "file": "disk_bytes",
    "run memory": "peak_run_bytes",
    "training": "train_seconds",
}


def main() -> None:
    """Print the table of a task and sparsity, from the records of a results folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paired")
    parser.add_argument("--task", required=True)
    parser.add_argument("--sparsity", type=float, required=True)
    parser.add_argument("--profile", default="embedded")
    parser.add_argument("--results", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    found = runs(Store(arguments.results).records(), arguments.task, arguments.profile)
    dense = found.pop(("dense", 0.0), {})
    if not dense:
        parser.exit(2, f"error: no dense run of {arguments.task} in {arguments.results}\n")
    rows: list[tuple[str, ...]] = [("", "seeds", "mean", "to dense", "95 % interval", *COSTS)]
    tested = tests(dense)
    mean = f"{statistics.mean(tested.values()):.2f}" if tested else "-"
    rows.append(("dense", str(len(tested)), mean, *("",) * (2 + len(COSTS))))
    place = usual_machine(dense.values())
    for (pruner, sparsity), by_seed in found.items():
        if sparsity == arguments.sparsity:
            rows.append((pruner, *compared(by_seed, dense, place)))
    print(table(rows, left=1))
    print(f"  times and memory: {place or 'measured on no known machine'}")


def runs(
    records: Iterable[Record], task: str, profile: str
) -> dict[tuple[str, float], dict[int, Record]]:
    """Return a task's runs without changed settings: by method and sparsity, then by seed.

    Only runs of the newest engine count, since others are not comparable with them.
    """
    records = list(records)
    newest = max((record.get("engine", FIRST_ENGINE) for record in records), default=FIRST_ENGINE)
    found: dict[tuple[str, float], dict[int, Record]] = {}
    for record in records:
        if record.get("engine", FIRST_ENGINE) != newest:
            continue
        spec = record["spec"]
        if (spec["task"], spec["profile"], spec["overrides"]) == (task, profile, {}):
            found.setdefault((spec["pruner"], spec["sparsity"]), {})[spec["seed"]] = record
    return found


def usual_machine(records: Iterable[Record]) -> str | None:
    """Return the machine that most runs were measured on."""
    counted = Counter(filter(None, (machine(record["provenance"]) for record in records)))
    return min(counted, key=lambda name: (-counted[name], name)) if counted else None


def compared(
    by_seed: Mapping[int, Record], dense: Mapping[int, Record], place: str | None
) -> list[str]:
    """Return the cells of a method; how many of its runs have a result and a dense run is said.

    Args:
        by_seed: its runs.
        dense: those to compare them with.
        place: the machine whose times and memory are compared.
    """
    known, reference = tests(by_seed), tests(dense)
    shared = len(known.keys() & reference.keys())
    seeds = f"{shared} of {len(by_seed)}" if shared < len(by_seed) else str(shared)
    change = difference(known, reference)
    if change is None:
        return [seeds, *("-",) * (3 + len(COSTS))]
    mean = statistics.mean(known[seed] for seed in known.keys() & reference.keys())
    interval = "one seed: none"
    if change.low is not None and change.high is not None:
        interval = f"{change.low:+.2f} to {change.high:+.2f}"
    ratios = [
        ratio(costs(by_seed, cost, place), costs(dense, cost, place)) for cost in COSTS.values()
    ]
    return [seeds, f"{mean:.2f}", f"{change.mean:+.2f}", interval, *map(as_text, ratios)]


def as_text(found: Interval | None) -> str:
    """Return a ratio's mean, or a dash."""
    return "-" if found is None else f"{found.mean:.3f}"


def costs(by_seed: Mapping[int, Record], cost: str, place: str | None) -> dict[int, float]:
    """Return a cost by seed, of the runs whose cost is known and can be compared."""
    known = {}
    for seed, record in by_seed.items():
        unfit = cost in not_comparable(record) or cost in disturbed(record)
        value = None if unfit else record["cost"].get(cost)
        here = place is not None and machine(record["provenance"]) == place
        comparable = here or cost not in DEPENDS_ON_MACHINE
        if value is not None and math.isfinite(value) and comparable:
            known[seed] = float(value)
    return known


def tests(by_seed: Mapping[int, Record]) -> dict[int, float]:
    """Return the test metric by seed, of the runs that have one."""
    found = {seed: record["quality"]["test"] for seed, record in by_seed.items()}
    return {seed: float(test) for seed, test in found.items() if test is not None}


if __name__ == "__main__":
    main()
