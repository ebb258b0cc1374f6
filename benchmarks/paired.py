"""How far methods are from the dense network, seed by seed, and what their networks cost.

    python -m harness matrix --suite unstructured
    python -m benchmarks.paired --task digits --sparsity 0.995

Runs of one seed share initial weights and data order, so their difference to the dense run of the
same seed is what counts: its mean over the seeds, with the 95 % interval of Student's t. Costs are
ratios to the same dense run, in the geometric mean over the seeds: of the final network, except
for the peak memory and the training time, which are of the whole run.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.results.intervals import mean_interval, ratio_interval
from harness.results.store import Record, Store
from harness.results.summary import table

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
    rows.append(("dense", str(len(dense)), f"{statistics.mean(map(quality, dense.values())):.2f}"))
    rows[-1] += ("",) * (len(rows[0]) - len(rows[-1]))
    for (pruner, sparsity), by_seed in found.items():
        if sparsity == arguments.sparsity:
            rows.append((pruner, *compared(by_seed, dense)))
    print(table(rows, left=1))


def runs(
    records: Iterable[Record], task: str, profile: str
) -> dict[tuple[str, float], dict[int, Record]]:
    """Return a task's runs without changed settings: by method and sparsity, then by seed."""
    found: dict[tuple[str, float], dict[int, Record]] = {}
    for record in records:
        spec = record["spec"]
        if (spec["task"], spec["profile"], spec["overrides"]) == (task, profile, {}):
            found.setdefault((spec["pruner"], spec["sparsity"]), {})[spec["seed"]] = record
    return found


def compared(by_seed: Mapping[int, Record], dense: Mapping[int, Record]) -> tuple[str, ...]:
    """Return the cells of a method; runs that diverged, or lack their dense run, are named."""
    known = {
        seed: record
        for seed, record in by_seed.items()
        if seed in dense and record["quality"]["test"] is not None
    }
    seeds = f"{len(known)} of {len(by_seed)}" if len(known) < len(by_seed) else str(len(known))
    if not known:
        return (seeds, *("",) * (3 + len(COSTS)))
    difference = mean_interval([quality(run) - quality(dense[seed]) for seed, run in known.items()])
    interval = "one seed: none"
    if difference.low is not None:
        interval = f"{difference.low:+.2f} to {difference.high:+.2f}"
    ratios = [
        ratio_interval(
            [run["cost"][cost] / dense[seed]["cost"][cost] for seed, run in known.items()]
        )
        for cost in COSTS.values()
    ]
    mean = statistics.mean(map(quality, known.values()))
    means = (f"{mean:.2f}", f"{difference.mean:+.2f}", interval)
    return (seeds, *means, *(f"{ratio.mean:.3f}" for ratio in ratios))


def quality(record: Record) -> float:
    """Return the test metric of a run that did not diverge."""
    return float(record["quality"]["test"])


if __name__ == "__main__":
    main()
