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
    """Carry out runs one after the other by the executor, and by themselves in one process."""
    matrix(equal_runs(1), jobs=1)  # warms the fork server
    added = (matrix(equal_runs(RUNS), jobs=1) - in_new_process(_by_themselves)) / RUNS
    return [Comparison("a run by the executor, added", added, SECONDS, "s", 1)]


def _by_themselves() -> float:
    """Return the seconds of the same runs in this process, imports not counted."""
    torch.set_num_threads(1)
    registry = Registry()
    plans = list(equal_runs(RUNS).values())
    for entry in (plans[0].task, plans[0].pruner):
        entry.load()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        began = time.perf_counter()
        for plan in plans:
            carry_out(plan, registry, store, torch.device("cpu"), lambda line: None, Stop())
        return time.perf_counter() - began
