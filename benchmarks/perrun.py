"""What the local executor adds to each run that it carries out."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from benchmarks.measurement import Comparison, in_new_process
from harness.dispatch import Dispatch, Tally
from harness.engine import carry_out
from harness.executor import Order, Resources
from harness.executors.local import Local
from harness.matrix import plan_matrix
from harness.registry import Registry
from harness.spec import Plan
from harness.stop import Stop, Urgency
from harness.store import Store
from harness.suite import Axes, Names, Suite

RUNS = 4
SECONDS = 1.0
"""That a run may take longer than by itself."""


def measure() -> list[Comparison]:
    """Carry out runs one after the other by the executor, and each by itself in a new process."""
    _by_the_executor(_plans(1))  # warms the fork server
    alone = sum(in_new_process(_by_itself, run_id) for run_id in _plans(RUNS))
    added = (_by_the_executor(_plans(RUNS)) - alone) / RUNS
    return [Comparison("a run by the executor, added", added, SECONDS, "s", 1)]


def _plans(number: int) -> Mapping[str, Plan]:
    """Return short dense runs that differ in their seeds only."""
    axes = Axes(Names(("digits",)), Names(("dense",)), seeds=tuple(range(number)))
    suite = Suite("perrun", "Equal runs", (axes,), "smoke")
    folder = Path("data")
    return plan_matrix(suite, Registry(), overrides={}, plugins=(), data_folder=folder).plans


def _by_the_executor(plans: Mapping[str, Plan]) -> float:
    """Return the seconds of a matrix with one slot and one thread."""
    with tempfile.TemporaryDirectory() as folder:
        tally = Tally(len(plans))
        executor = Local(Resources(1, "cpu", threads=1), tally.hear, Path(folder))
        orders = [Order(plan, (), Path(folder), checkpoint_every=60) for plan in plans.values()]
        dispatch = Dispatch(executor, Store(Path(folder)), tally, Urgency())
        began = time.perf_counter()
        dispatch.carry_out(orders, lambda: None)
        seconds = time.perf_counter() - began
        assert tally.count() == {"done": len(plans)}
    return seconds


def _by_itself(run_id: str) -> float:
    """Return the seconds from a run's start to its record; imports are not counted."""
    torch.set_num_threads(1)
    plan = _plans(RUNS)[run_id]
    for entry in (plan.task, plan.pruner):
        entry.load()
    cpu = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        began = time.perf_counter()
        carry_out(plan, Registry(), store, cpu, lambda line: None, Stop())
        return time.perf_counter() - began
