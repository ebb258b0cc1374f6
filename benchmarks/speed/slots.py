"""What a second slot brings to the smoke suite, beside what a second process brings to bare loops.

The matrix is the whole command, from its start to its end. The bare loops train the same tasks and
nothing else: one process carries out all steps, or each of two half of them, and what they wait
for before the first step is not counted. A process has one thread, on both sides.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor

import torch

from benchmarks.measurement import Comparison
from harness.matrix.suite import find_suite
from harness.network import build_task
from harness.registry import Registry
from harness.spec import plan

SUITE = "smoke"
STEPS = 60
"""Of each task that the bare loops carry out: some ten seconds in all."""

Seconds = Mapping[int, Sequence[float]]
"""By the number of slots or processes."""


def measure() -> list[Comparison]:
    """Let the matrix and the bare loops take turns."""
    loops: dict[int, list[float]] = {1: [], 2: []}
    matrices: dict[int, list[float]] = {1: [], 2: []}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn, initializer=_get_ready) as processes:
        _train(processes, 2)
        # The same backwards, so that what slowly becomes faster or slower meets all alike.
        for slots in (2, 1, 2):
            for number in loops:
                loops[number].append(_train(processes, number))
            matrices[slots].append(_matrix(slots))
    return [Comparison("two slots: bare / matrix", _gain(loops), _gain(matrices), "x", 1.05)]


def _gain(seconds: Seconds) -> float:
    return statistics.median(seconds[1]) / statistics.median(seconds[2])


def _matrix(slots: int) -> float:
    """Return the seconds of the command."""
    with tempfile.TemporaryDirectory() as results:
        words = ["--suite", SUITE, "--device", "cpu", "--jobs", str(slots), "--results", results]
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "harness", "matrix", *words],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        return time.perf_counter() - began


def _train(processes: ProcessPoolExecutor, number: int) -> float:
    """Return the seconds of all steps, divided between so many processes."""
    began = time.perf_counter()
    list(processes.map(_bare_loops, [STEPS // number] * number))
    return time.perf_counter() - began


_steps: list[Callable[[], None]] = []
"""One for each task, in a process that trains."""


def _get_ready() -> None:
    """Build the tasks of the suite."""
    torch.set_num_threads(1)
    suite, registry = find_suite(SUITE), Registry()
    for axes in suite.axes:
        names = axes.tasks.resolve("task", registry)
        _steps.extend(_step_of(name, suite.profile) for name in names)


def _step_of(name: str, profile: str) -> Callable[[], None]:
    task = build_task(plan(Registry(), name, "dense", profile=profile), torch.device("cpu"))
    model = task.model()
    stream = task.stream(model, 0)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        optimiser.zero_grad()
        task.loss(model, stream.next(model)).backward()
        optimiser.step()

    return step


def _bare_loops(steps: int) -> None:
    for step in _steps:
        for _ in range(steps):
            step()
