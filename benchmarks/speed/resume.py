"""Time to resume a finished matrix, and to plan a large one."""

from __future__ import annotations

import json
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
from harness.results.head import head, no_quality
from harness.spec import Plan
from harness.storage.damage import COSTS

DONE, QUEUED = 2_000, 10_000
SECONDS_FOR_DONE, SECONDS_FOR_QUEUED, BYTES_FOR_QUEUED = 2.0, 5.0, 500_000_000


def measure() -> list[Comparison]:
    """Let a matrix return that is done, and plan one that is not."""
    with tempfile.TemporaryDirectory() as folder:
        for plan in _plans(DONE).values():
            _write_record(plan, Path(folder))
        seconds = _matrix(folder)
    planning, held = in_new_process(_plan_in_this_process)
    return [
        Comparison(f"matrix of {DONE} runs that are done", seconds, SECONDS_FOR_DONE, "s", 1.0),
        Comparison(f"planning {QUEUED} runs", planning, SECONDS_FOR_QUEUED, "s", 1.0),
        Comparison("memory meanwhile", held / 1e6, BYTES_FOR_QUEUED / 1e6, "MB", 1.0),
    ]


def _matrix(results: str) -> float:
    """Return the seconds of the command."""
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
    """Return this process's peak memory; what `resource` says may be that of its parent."""
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in status if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])


def _plans(number: int) -> Mapping[str, Plan]:
    axes = Axes(Names(("digits",)), Names(("snip",)), seeds=tuple(range(number)))
    suite = Suite("seeds", "Many seeds", (axes,))
    folder = Path("data")
    return plan_matrix(suite, Registry(), overrides={}, plugins=(), data_folder=folder).plans


def _write_record(plan: Plan, results: Path) -> None:
    """Write a record of the size of a real one: 62 layers and 20 epochs."""
    layers = [
        {"name": f"layer{n}.weight", "shape": [n, 9], "weights": 9 * n, "kept": n}
        for n in range(62)
    ]
    epochs = [
        {"position": n, "spent": n, "loss": 1 / 7, "validation": {"accuracy": 100 / 7}}
        for n in range(20)
    ]
    record = {
        **head(plan, "done", None),
        "quality": no_quality(plan.task),
        "sparsity": {
            "requested": plan.spec.sparsity,
            "weights": 0.98,
            "effective": 0.98,
            "emptied_layers": [],
            "per_layer": layers,
        },
        "cost": {**dict.fromkeys(COSTS, 1), "train_seconds": 30.0, "reasons": {}},
        "events": [{"verb": "train", "spent": 20, "ended_by": "plan", "epochs": epochs}],
        "provenance": {"device": "none", "threads": 1, "resumed": []},
    }
    folder = results / plan.run_id
    folder.mkdir()
    (folder / "record.json").write_text(json.dumps(record, indent=1))
