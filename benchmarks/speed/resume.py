"""Time to resume a finished matrix, and to plan a large one."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.measurement import Comparison, in_new_process
from harness.matrix.plan import plan_matrix
from harness.matrix.suite import Axes, Names, Suite
from harness.registry import Registry
from harness.results.example import example
from harness.spec import Plan
from harness.storage.store import Store

DONE, QUEUED = 2_000, 10_000
SECONDS_FOR_DONE, SECONDS_FOR_QUEUED, BYTES_FOR_QUEUED = 2.0, 5.0, 500_000_000


def measure() -> list[Comparison]:
    """Time the command on a matrix that is done, and the planning of one that is not."""
    with tempfile.TemporaryDirectory() as folder:
        for plan in _plans(DONE).values():
            _write_record(plan, Store(Path(folder)))
        seconds = _matrix(folder)
    planning, held = in_new_process(_plan_in_this_process)
    return [
        Comparison(f"matrix of {DONE} runs that are done", seconds, SECONDS_FOR_DONE, "s", 1.0),
        Comparison(f"planning {QUEUED} runs", planning, SECONDS_FOR_QUEUED, "s", 1.0),
        Comparison("memory meanwhile", held / 1e6, BYTES_FOR_QUEUED / 1e6, "MB", 1.0),
    ]


def _matrix(results: str) -> float:
    """Return how many seconds the command takes."""
    words = ["--tasks", "digits", "--pruners", "snip", "--seeds", ",".join(map(str, range(DONE)))]
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "harness", "matrix", *words, "--results", results],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - began


def _plan_in_this_process() -> tuple[float, int]:
    began = time.perf_counter()
    plans = _plans(QUEUED)
    seconds = time.perf_counter() - began
    assert len(plans) == QUEUED
    return seconds, _peak_bytes()


def _peak_bytes() -> int:
    """Return the peak memory of this process; `resource` may give that of its parent."""
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in status if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])


def _plans(number: int) -> Mapping[str, Plan]:
    axes = Axes(Names(("digits",)), Names(("snip",)), seeds=tuple(range(number)))
    suite = Suite("seeds", "Many seeds", (axes,))
    folder = Path("data")
    return plan_matrix(suite, Registry(), overrides={}, plugins=(), data_folder=folder).plans


def _write_record(plan: Plan, store: Store) -> None:
    """Write a record of the size of a real one: 62 layers and 20 epochs."""
    layers = [
        {"name": f"layer{n}.weight", "shape": [n, 9], "weights": 9 * n, "kept": n}
        for n in range(62)
    ]
    epochs = [
        {"position": n, "spent": n, "loss": 1 / 7, "validation": {"accuracy": 100 / 7}}
        for n in range(20)
    ]
    training = {"verb": "train", "spent": 20, "ended_by": "plan", "epochs": epochs}
    record = example(run_id=plan.run_id, sparsity__per_layer=layers, events=[training])
    store.open_run(plan.run_id)
    store.save(record)
