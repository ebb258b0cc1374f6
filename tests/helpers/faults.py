"""A plug-in: methods that end badly, each in its own way.

A process that loads it measures no final network, which would take most of the time.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time

import pytest

from harness.registry import pruner
from harness.run import Run
from tests.helpers.costs import unmeasured

# The workers of an executor call `run_plan` themselves; a plug-in is all that reaches them.
pytest.MonkeyPatch().setattr("harness.engine.run_plan.final_costs", unmeasured)


@pruner("segfaulting", title="Reads where nothing is", prunes=False)
def segfaulting(run: Run) -> None:
    run.train(epochs=1)
    ctypes.string_at(0)


@pruner("killed", title="Is killed", prunes=False)
def killed(run: Run) -> None:
    run.train(epochs=1)
    os.kill(os.getpid(), signal.SIGKILL)


@pruner("hanging", title="Never ends, and neither does what it has started", prunes=False)
def hanging(run: Run, *, sleeper: str = "") -> None:
    run.train(epochs=1)
    process = subprocess.Popen(["sleep", "1000"])
    with open(sleeper, "w") as file:
        file.write(str(process.pid))
    while True:
        time.sleep(1)


@pruner("raising", title="Raises", prunes=False)
def raising(run: Run) -> None:
    run.train(epochs=1)
    raise ValueError("boom")


@pruner("killed_once", title="Is killed the first time", prunes=False)
def killed_once(run: Run, *, witness: str = "") -> None:
    run.train(epochs=1)
    if not os.path.exists(witness):
        open(witness, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    run.train()


@pruner("greedy", title="Holds a gigabyte more than it needs", prunes=False)
def greedy(run: Run) -> None:
    run.train(epochs=1)
    held = bytearray(10**9)
    while held:
        time.sleep(0.1)
        run.train(steps=1)


@pruner("hoarding", title="Takes half a megabyte of snapshots", prunes=False)
def hoarding(run: Run) -> None:
    for _ in range(40):
        run.snapshot()
    run.train()
