"""Nothing is lost, with real processes, signals and disks."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from attempts import NEVER, OFTEN, Attempts, StopAfter
from workbench import POINTS, Workbench

from harness.contracts import outcome
from harness.errors import Interrupted, RequestError, RunFailed
from harness.registry import Registry
from harness.spec import plan
from harness.storage.journal import Attempts as RecordedAttempts
from harness.storage.store import Store

PATIENCE = 120.0
"""Seconds after which something that should happen does not."""

INTERRUPTED = "interrupted: the same command goes on from here"


def smoke(bench: Workbench, task: str, pruner: str, results: str) -> Attempts:
    """Return attempts, in this process, at a run of one of this project's tasks."""
    wanted = plan(Registry(), task, pruner, profile="smoke")
    return Attempts(bench, wanted, bench.folder / results)


class Process:
    """The command for a run, in a process and a process group of its own."""

    def __init__(self, run: Attempts, *options: str) -> None:
        spec = run.plan.spec
        words = ["run", "--task", spec.task, "--pruner", spec.pruner, "--profile", spec.profile]
        words += [*options, "--results", str(run.results), "--checkpoint-every", "0.02"]
        self._errors = run.results.with_name(f"errors-{time.monotonic_ns()}")
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "harness", *words],
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        self.pid = self._process.pid

    @property
    def lines(self) -> list[str]:
        """What it said on stderr."""
        return self._errors.read_text().splitlines()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, number)

    def send_to_group(self, number: signal.Signals) -> None:
        """Send a signal to the process and all that it has started, as a terminal does."""
        os.killpg(self.pid, number)

    def code(self) -> int:
        """Wait for the end and return the exit code."""
        return self._process.wait(PATIENCE)

    def ends_within(self, seconds: float) -> bool:
        """Wait for the end, but not longer, and return whether it came."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    @property
    def group_is_empty(self) -> bool:
        """Whether nothing that it has started is left."""
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return True
        return False


def eventually(happened: Callable[[], object]) -> None:
    """Wait until something has happened."""
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.01)


def test_who_waits_for_a_run_goes_on_when_its_process_is_killed(bench: Workbench) -> None:
    whole = outcome(smoke(bench, "cartpole", "ltr", "whole").go(checkpoints=NEVER))
    run = smoke(bench, "cartpole", "ltr", "shared")
    first = Process(run)
    eventually(lambda: len(run.checkpoints) == 2)
    first.send(signal.SIGSTOP)
    second = Process(run)
    holder = f"{run.plan.run_id} is being carried out by process {first.pid}"
    eventually(lambda: f"{holder}; waiting for it to end" in second.lines)
    first.send(signal.SIGKILL)
    assert first.code() == -signal.SIGKILL
    assert second.code() == 0
    record = Store(run.results).record(run.plan.run_id)
    assert record is not None
    assert outcome(record) == whole
    (resumed,) = record["provenance"]["resumed"]
    assert f"resuming from step {resumed['position']}" in second.lines
    assert (resumed["device"], resumed["threads"]) == (record["provenance"]["device"], 1)
    assert record["cost"]["step_ms"] > 0
    left = {path.name for path in run.folder.iterdir()}
    assert left == {
        "journal.jsonl",
        "lives.json",
        "lock",
        "network.safetensors",
        "record.json",
    }


def test_sigterm_and_ctrl_c_lose_nothing(bench: Workbench) -> None:
    """First in training, then while the final network is measured."""
    whole = outcome(smoke(bench, "cartpole", "earlycrop_u", "whole").go(checkpoints=NEVER))
    run = smoke(bench, "cartpole", "earlycrop_u", "stopped")
    process = Process(run)
    eventually((run.folder / "lives.json").exists)
    process.send(signal.SIGTERM)
    assert process.code() == 1
    assert process.lines[-1] == INTERRUPTED
    assert not any("Traceback" in line for line in process.lines)
    assert run.checkpoints

    process = Process(run)
    eventually((run.folder / "network.safetensors").exists)
    time.sleep(0.3)
    process.send_to_group(signal.SIGINT)
    assert process.code() == 1
    assert process.lines[-1] == INTERRUPTED
    assert not any("Traceback" in line for line in process.lines)
    eventually(lambda: process.group_is_empty)

    assert outcome(run.go()) == whole


@pytest.mark.slow
def test_nothing_is_left_of_a_process_that_is_killed_while_it_measures(bench: Workbench) -> None:
    wanted = bench.plan("dense", profile="embedded")  # measured in a process of its own
    run = Attempts(bench, wanted, bench.folder / "killed")
    process = Process(run, "--plugin", str(POINTS))
    eventually((run.folder / "network.safetensors").exists)
    time.sleep(0.3)
    process.send(signal.SIGKILL)
    assert process.code() == -signal.SIGKILL
    eventually(lambda: process.group_is_empty)
    assert not any("Traceback" in line for line in process.lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "pruner", "seed"),
    [
        ("digits", "earlycrop_u", 0),
        ("digits", "ltr", 1),
        ("cartpole", "earlycrop_u", 2),
        ("cartpole", "ltr", 3),
        ("ptb", "earlycrop_u", 4),
        ("ptb", "ltr", 5),
    ],
)
def test_killed_at_random_moments(bench: Workbench, task: str, pruner: str, seed: int) -> None:
    whole = outcome(smoke(bench, task, pruner, "whole").go(checkpoints=NEVER))
    run, draw = smoke(bench, task, pruner, "killed"), random.Random(seed)
    for attempt in range(1, 5):
        process = Process(run)
        # A kill may have come after the record was written: then there is no further attempt.
        while len(RecordedAttempts(run.folder / "lives.json").entries) < attempt:
            if process.ends_within(0.01):
                break
        if process.ends_within(draw.uniform(0, 4)):
            assert process.code() == 0, process.lines
            break
        process.send_to_group(signal.SIGKILL)
        process.code()
    assert Process(run).code() == 0
    record = Store(run.results).record(run.plan.run_id)
    assert record is not None
    assert outcome(record) == whole


def test_a_disk_that_is_full(bench: Workbench, small_disk: Path) -> None:
    """However much is left on it, what has been done so far is not lost."""
    whole = outcome(bench.run("earlycrop_u"))
    run = Attempts(bench, bench.plan("earlycrop_u"), small_disk)
    ballast = small_disk / "ballast"
    for pages in (0, 1, 2, 3):
        ballast.write_bytes(b"")
        free = os.statvfs(small_disk).f_bavail
        ballast.write_bytes(bytes(4096 * (free - pages)))
        with pytest.raises((RunFailed, RequestError), match=r"No space left on device$"):
            run.go()
        assert not list(small_disk.glob("*/*.unfinished"))
    ballast.unlink()
    assert outcome(run.go()) == whole


def test_a_disk_that_is_read_only(bench: Workbench, small_disk: Path) -> None:
    whole = outcome(bench.run("earlycrop_u"))
    run = Attempts(bench, bench.plan("earlycrop_u"), small_disk)
    with pytest.raises(Interrupted):
        run.go(StopAfter(chances=9), OFTEN)
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    subprocess.run(remount, check=True)
    with pytest.raises(RequestError, match=rf"^results folder {small_disk}: Read-only file system"):
        run.go()
    subprocess.run([*remount[:2], "remount,rw", remount[-1]], check=True)
    record = run.go()
    assert outcome(record) == whole
    assert record["provenance"]["resumed"][0]["position"] == 9
