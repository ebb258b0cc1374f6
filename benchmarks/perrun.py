"""What the local executor adds to each run that it carries out."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch

from benchmarks.measurement import Comparison, in_new_process
from benchmarks.slots import equal_runs, matrix
from harness.engine import carry_out
from harness.registry import Registry
from harness.stop import Stop
from harness.store import Store

RUNS = 4
SECONDS = 1.0
"""That a run may take longer than by itself."""


def measure() -> list[Comparison]:
    """Carry out runs one after the other by the executor, and each by itself in a new process."""
    matrix(equal_runs(1), jobs=1)  # warms the fork server
    alone = sum(in_new_process(_by_itself, run_id) for run_id in equal_runs(RUNS))
    added = (matrix(equal_runs(RUNS), jobs=1) - alone) / RUNS
    return [Comparison("a run by the executor, added", added, SECONDS, "s", 1)]


def _by_itself(run_id: str) -> float:
    """Return the seconds from a run's start to its record; imports are not counted."""
    torch.set_num_threads(1)
    plan = equal_runs(RUNS)[run_id]
    for entry in (plan.task, plan.pruner):
        entry.load()
    cpu = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        began = time.perf_counter()
        carry_out(plan, Registry(), store, cpu, lambda line: None, Stop())
        return time.perf_counter() - began
