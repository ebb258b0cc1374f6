"""What the local executor costs and brings: an added run, and a second slot."""

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
from pathlib import Path

import torch

from benchmarks.measurement import Comparison, in_new_process
from harness.engine.run_plan import run_plan
from harness.executors.local import Local
from harness.matrix.dispatch import Dispatch, Tally
from harness.matrix.executor import Job, Resources
from harness.matrix.plan import plan_matrix
from harness.matrix.suite import Axes, Names, Suite, find_suite
from harness.network import build_task
from harness.registry import Registry
from harness.signals import Stop, StopRequest
from harness.spec import Plan, plan
from harness.storage.store import Store

SUITE = "smoke"
STEPS = 60
"""Of each task that the bare loops carry out: some ten seconds in all."""

Seconds = Mapping[int, Sequence[float]]
"""By the number of slots or processes."""


def slots() -> list[Comparison]:
    """Let the matrix and the bare loops take turns."""
    loops: dict[int, list[float]] = {1: [], 2: []}
    matrices: dict[int, list[float]] = {1: [], 2: []}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn, initializer=_get_ready) as processes:
        _train(processes, 2)
        # The same backwards, so that what slowly becomes faster or slower meets all alike.
        for jobs in (2, 1, 2):
            for number in loops:
                loops[number].append(_train(processes, number))
            matrices[jobs].append(_matrix(jobs))
    return [Comparison("two slots: bare / matrix", _gain(loops), _gain(matrices), "x", 1.05)]


def _gain(seconds: Seconds) -> float:
    return statistics.median(seconds[1]) / statistics.median(seconds[2])


def _matrix(number: int) -> float:
    """Return the seconds of the command."""
    with tempfile.TemporaryDirectory() as results:
        words = ["--suite", SUITE, "--device", "cpu", "--jobs", str(number), "--results", results]
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


RUNS = 4
SECONDS = 1.0
"""That a run may take longer than by itself."""


def perrun() -> list[Comparison]:
    """Carry out runs by the executor, and each by itself in a new process, in turns."""
    plans = _plans()
    _by_the_executor(plans[0])  # warms the fork server
    added = [
        _by_the_executor(plan) - in_new_process(_by_itself, number)
        for number, plan in enumerate(plans)
    ]
    return [Comparison("a run by the executor, added", statistics.median(added), SECONDS, "s", 1)]


def _plans() -> Sequence[Plan]:
    """Return short dense runs that differ in their seeds only."""
    axes = Axes(Names(("digits",)), Names(("dense",)), seeds=tuple(range(RUNS)))
    suite = Suite("perrun", "Equal runs", (axes,), "smoke")
    folder = Path("data")
    matrix = plan_matrix(suite, Registry(), overrides={}, plugins=(), data_folder=folder)
    return list(matrix.plans.values())


def _by_the_executor(plan: Plan) -> float:
    """Return the seconds of a matrix of one run, with one slot and one thread."""
    with tempfile.TemporaryDirectory() as folder:
        tally = Tally(1)
        executor = Local(Resources(1, "cpu", threads=1), tally.report, Path(folder))
        job = Job(plan, (), Path(folder), checkpoint_every=60)
        dispatch = Dispatch(executor, Store(Path(folder)), tally, StopRequest())
        began = time.perf_counter()
        dispatch.run([job], lambda: None)
        seconds = time.perf_counter() - began
        assert tally.count() == {"done": 1}
    return seconds


def _by_itself(number: int) -> float:
    """Return the seconds from a run's start to its record; imports are not counted."""
    import harness.executors.local_preload  # noqa: F401  # what the fork server has imported

    torch.set_num_threads(1)
    plan = _plans()[number]
    cpu = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        began = time.perf_counter()
        run_plan(plan, Registry(), store, cpu, lambda line: None, Stop())
        return time.perf_counter() - began
