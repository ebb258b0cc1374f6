"""What a second slot of the local executor brings, beside what it brings to bare loops."""

from __future__ import annotations

import multiprocessing
import multiprocessing.synchronize
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.measurement import Comparison
from harness.dispatch import Dispatch, Tally
from harness.executor import Order, Resources
from harness.executors.local import Local
from harness.matrix import plan_matrix
from harness.registry import Registry
from harness.spec import Plan
from harness.stop import Urgency
from harness.store import Store
from harness.suite import Axes, Names, Suite

RUNS = 4
STEPS = 150
"""Of a bare training loop: some seconds."""


def measure() -> list[Comparison]:
    """Carry out a matrix with one slot and with two, beside bare loops."""
    matrix(equal_runs(1), jobs=1)  # warms the fork server
    one, two = matrix(equal_runs(RUNS), jobs=1), matrix(equal_runs(RUNS), jobs=2)
    alone, together = _bare_loops(1), _bare_loops(2)
    return [Comparison("two slots: bare / matrix", 2 * alone / together, one / two, "x", 1.05)]


def equal_runs(number: int) -> Mapping[str, Plan]:
    """Return the plans of short dense runs that differ in their seeds only."""
    axes = Axes(Names(("digits",)), Names(("dense",)), seeds=tuple(range(number)))
    suite = Suite("slots", "Equal runs", (axes,), "smoke")
    folder = Path("data")
    return plan_matrix(suite, Registry(), overrides={}, plugins=(), data_folder=folder).plans


def matrix(plans: Mapping[str, Plan], jobs: int) -> float:
    """Return the seconds of a matrix with one thread for each run."""
    with tempfile.TemporaryDirectory() as folder:
        tally = Tally(len(plans))
        executor = Local(Resources(jobs, "cpu", threads=1), tally.hear, Path(folder))
        orders = [Order(plan, (), Path(folder), checkpoint_every=60) for plan in plans.values()]
        dispatch = Dispatch(executor, Store(Path(folder)), tally, Urgency())
        began = time.perf_counter()
        dispatch.carry_out(orders, lambda: None)
        seconds = time.perf_counter() - began
        assert tally.count() == {"done": len(plans)}
    return seconds


def _bare_loops(number: int) -> float:
    """Return the seconds that bare loops take, each in a process of its own, all at once."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(number + 1)
    loops = [context.Process(target=_bare_loop, args=(barrier,)) for _ in range(number)]
    for loop in loops:
        loop.start()
    barrier.wait()
    began = time.perf_counter()
    barrier.wait()
    seconds = time.perf_counter() - began
    for loop in loops:
        loop.join()
    return seconds


def _bare_loop(barrier: multiprocessing.synchronize.Barrier) -> None:
    import torch

    from benchmarks.laboratory import embedded_task

    torch.set_num_threads(1)
    task = embedded_task("digits")
    model = task.model()
    stream = task.stream(model, 0)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    barrier.wait()
    for _ in range(STEPS):
        optimiser.zero_grad()
        task.loss(model, stream.next(model)).backward()
        optimiser.step()
    barrier.wait()
