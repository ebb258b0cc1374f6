"""How much slower a run becomes beside another run, with two threads each on two processors."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from benchmarks.measurement import Comparison
from harness.__main__ import SPIN_COUNT

STEPS = 60
THREADS = "2"
ROUNDS = 3

PROGRAM = """
import statistics, sys, time
from benchmarks.embedded import embedded_task, embedded_trainer
trainer = embedded_trainer(embedded_task("digits"))
print("ready", flush=True)
sys.stdin.readline()
seconds = []
for _ in range(int(sys.argv[1])):
    began = time.perf_counter()
    trainer.step()
    seconds.append(time.perf_counter() - began)
print(statistics.median(seconds), flush=True)
"""


def measure() -> list[Comparison]:
    """Train `digits` alone and beside a second run, with the command line's setting and without."""
    alone, beside, default = [], [], []
    for _ in range(ROUNDS):
        alone += _steps(1, {"GOMP_SPINCOUNT": SPIN_COUNT})
        beside += _steps(2, {"GOMP_SPINCOUNT": SPIN_COUNT})
        default += _steps(1, {})
    ours, theirs, usual = (1e3 * statistics.median(each) for each in (alone, beside, default))
    return [
        Comparison("step beside another run / alone", theirs, ours, "ms", 2.5),
        Comparison("step alone / with OpenMP's default", ours, usual, "ms", 1.2),
    ]


def _steps(processes: int, settings: dict[str, str]) -> list[float]:
    """Return the median seconds of a training step in each of some processes at once."""
    environment = {**os.environ, "OMP_NUM_THREADS": THREADS, **settings}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(STEPS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(processes)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return [float(process.communicate()[0]) for process in started]
