r"""How far methods are from the dense network, seed by seed.

    python -m benchmarks.paired --task digits --sparsity 0.995 \
        --pruners random_u,snip,crop_u,cropit_u,earlycrop_u --seeds 0,1,2,3,4

Runs of one seed share initial weights and data order, so their difference to the dense run of the
same seed is what counts: its mean over the seeds with the 95 % interval of Student's t. Runs that
are done in the results folder are not done again. With ``--jobs`` runs share the machine: then
their times say nothing, and none are printed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from scipy.stats import t as student

from harness.registry import Registry
from harness.spec import plan
from harness.stop import Stop
from harness.store import Record, Store


def main() -> None:
    """Carry out what is missing and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paired")
    parser.add_argument("--task", required=True)
    parser.add_argument("--sparsity", type=float, required=True)
    parser.add_argument("--pruners", required=True)
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--profile", default="embedded")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    arguments = parser.parse_args()
    pruners = ["dense", *(name for name in arguments.pruners.split(",") if name != "dense")]
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    threads = max(1, (os.cpu_count() or 1) // arguments.jobs)
    with ProcessPoolExecutor(
        arguments.jobs, multiprocessing.get_context("spawn"), _use_threads, (threads,)
    ) as processes:
        futures = {
            (pruner, seed): processes.submit(
                record_of,
                arguments.task,
                pruner,
                arguments.sparsity,
                seed,
                arguments.profile,
                arguments.results,
            )
            for seed in seeds
            for pruner in pruners
        }
        records = {key: future.result() for key, future in futures.items()}
    print_table(records, pruners, seeds)


def _use_threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


def record_of(
    task: str, pruner: str, sparsity: float, seed: int, profile: str, results: Path
) -> Record:
    """Return the record of a run on the CPU, carrying it out if need be."""
    import torch

    from harness.engine import carry_out

    registry = Registry()
    wanted = plan(registry, task, pruner, sparsity=sparsity, seed=seed, profile=profile)
    cpu = torch.device("cpu")
    return carry_out(wanted, registry, Store(results), cpu, lambda line: None, Stop())


def print_table(
    records: dict[tuple[str, int], Record], pruners: Sequence[str], seeds: Sequence[int]
) -> None:
    """Print each method's test metric and its difference to dense."""
    first = records[pruners[0], seeds[0]]
    print(f"test {first['quality']['metric']}, {len(seeds)} seeds: {', '.join(map(str, seeds))}")
    print(f"{'':<20}{'mean':>9}{'deviation':>11}{'to dense':>10}{'95 % interval':>20}  seeds")
    for pruner in pruners:
        tests = [quality(records[pruner, seed]) for seed in seeds]
        known = [test for test in tests if test is not None]
        line = f"{pruner:<20}"
        if len(known) < len(seeds):
            line += f"  {len(seeds) - len(known)} of {len(seeds)} diverged"
        else:
            line += f"{statistics.mean(known):>9.2f}{_deviation(known):>11.2f}"
            dense = [quality(records["dense", seed]) or 0.0 for seed in seeds]
            line += _difference([a - b for a, b in zip(known, dense, strict=True)])
        print(f"{line}  {' '.join('-' if test is None else f'{test:.1f}' for test in tests)}")


def quality(record: Record) -> float | None:
    """Return the test metric, None if the run diverged."""
    test: float | None = record["quality"]["test"]
    return test


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _difference(differences: Sequence[float]) -> str:
    mean = statistics.mean(differences)
    if len(differences) < 2:
        return f"{mean:>+10.2f}{'one seed: none':>20}"
    half = student.ppf(0.975, len(differences) - 1) * _deviation(differences)
    half /= len(differences) ** 0.5
    return f"{mean:>+10.2f}{f'{mean - half:+.2f} to {mean + half:+.2f}':>20}"


if __name__ == "__main__":
    main()
