"""What the local executor adds to each run that it carries out."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.measurement import Comparison, in_new_process
from harness.engine.run_plan import run_plan
from harness.executors.local import Local
from harness.matrix.dispatch import Dispatch, Tally
from harness.matrix.executor import Job, Resources
from harness.matrix.plan import plan_matrix
from harness.matrix.suite import Axes, Names, Suite
from harness.registry import Registry
from harness.signals import Stop, StopRequest
from harness.spec import Plan
from harness.storage.store import Store

RUNS = 4
SECONDS = 1.0
"""That a run may take longer than by itself."""


def measure() -> list[Comparison]:
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
