"""Measuring the networks of a matrix: what it costs, and whether times are those of a run alone."""

from __future__ import annotations

import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.embedded import CPU
from benchmarks.measurement import Comparison
from harness.costs.exclusive_device import load_by_others
from harness.engine.final_costs import measure as measure_here
from harness.engine.final_costs import measure_elsewhere
from harness.engine.measurement import measure_run
from harness.network import plan_of
from harness.registry import Registry
from harness.results.measured import with_measurement
from harness.signals import Stop
from harness.storage.store import Store

TASK, EPOCHS = "digits", 1
RUNS = 3
"""On each side; their dense networks differ in seeds only, so all take the same time."""
TIMES = {"step_ms": "step", "inference_ms": "inference"}


def measure() -> list[Comparison]:
    """Measure equal networks in a matrix of two jobs, after runs alone, and beside a busy core."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        options = ["--device", "cpu", "--set", f"epochs={EPOCHS}", "--results", folder]
        words = ["matrix", "--tasks", TASK, "--pruners", "dense", "--jobs", "2"]
        _harness(*words, "--seeds", f"0-{RUNS - 1}", "--measure", "end", *options)
        in_matrix = store.run_ids()
        for seed in range(RUNS, 2 * RUNS):
            _harness("run", "--task", TASK, "--pruner", "dense", "--seed", str(seed), *options)
        alone = [run_id for run_id in store.run_ids() if run_id not in in_matrix]
        return [
            *_times(_costs(store, in_matrix), _costs(store, alone)),
            *_overhead(store, in_matrix),
            _unmarked(store, in_matrix),
        ]


def _harness(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "harness", *words], check=True, capture_output=True)


def _costs(store: Store, run_ids: Sequence[str]) -> list[Mapping[str, Any]]:
    return [
        with_measurement(store.find(run_id), store.folder / run_id)["cost"] for run_id in run_ids
    ]


def _times(
    in_matrix: Sequence[Mapping[str, Any]], alone: Sequence[Mapping[str, Any]]
) -> Iterator[Comparison]:
    """Compare the slower side with the faster one, so that 5 % either way are too much."""
    for key, title in TIMES.items():
        sides = [statistics.median(cost[key] for cost in each) for each in (in_matrix, alone)]
        yield Comparison(f"{title}: matrix and run alone", max(sides), min(sides), "ms", 1.05)


def _overhead(store: Store, run_ids: Sequence[str]) -> list[Comparison]:
    """Measure networks in this process, each in a new one, and with lock and look, in turns."""
    registry, stop, threads = Registry(), Stop(), torch.get_num_threads()
    seconds: tuple[list[float], list[float], list[float]] = ([], [], [])
    for run_id in run_ids:
        folder, record = store.folder / run_id, store.find(run_id)
        plan = plan_of(record, registry, Path("data"))
        calls: tuple[Callable[[], object], ...] = (
            partial(measure_here, folder, plan, (), "cpu", threads),
            partial(measure_elsewhere, folder, plan, (), CPU, stop),
            partial(
                measure_run, folder, record, registry, CPU, (), Path("data"), 0.0, _silent, stop
            ),
        )
        for call, taken in zip(calls, seconds, strict=True):
            began = time.perf_counter()
            call()
            taken.append(time.perf_counter() - began)
    here, elsewhere, locked = map(statistics.median, seconds)
    return [
        Comparison("measured in a new process / here", elsewhere, here, "s", None),
        Comparison("with lock and look / without", locked, elsewhere, "s", None),
    ]


def _unmarked(store: Store, run_ids: Sequence[str]) -> Comparison:
    """Measure networks without the lock beside a busy core: each time should be marked."""
    registry, unmarked = Registry(), 0
    with _busy_core():
        for run_id in run_ids:
            plan = plan_of(store.find(run_id), registry, Path("data"))
            cost = measure_elsewhere(store.folder / run_id, plan, (), CPU, Stop())
            unmarked += len(TIMES.keys() - cost["disturbed"].keys())
    return Comparison("unmarked beside a busy core", unmarked, len(TIMES) * len(run_ids), "", 0)


@contextmanager
def _busy_core() -> Iterator[None]:
    process = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
    process.start()
    try:
        while load_by_others(CPU) < 0.5:
            pass
        yield
    finally:
        process.kill()
        process.join()


def _spin() -> None:
    while True:
        pass


def _silent(line: str) -> None:
    """Show no progress."""
