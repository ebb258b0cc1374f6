"""Real processes, signals and disks: whatever happens to them, nothing is lost."""

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

from harness.contracts import StopAfter
from harness.errors import Interrupted, RequestError, RunFailed
from harness.registry import Registry
from harness.spec import plan
from harness.storage.journal import Attempts as RecordedAttempts
from harness.storage.store import Store, outcome
from tests.helpers.attempts import NEVER, OFTEN, Attempts, attempts
from tests.helpers.points import MEETING
from tests.helpers.workbench import POINTS, Workbench

PATIENCE = 120.0
"""Seconds to wait for something that should happen."""

INTERRUPTED = "interrupted: the same command resumes from here"


def smoke(bench: Workbench, task: str, pruner: str, results: str) -> Attempts:
    """Return attempts, in this process, at a run of one of this project's tasks."""
    wanted = plan(Registry(), task, pruner, profile="smoke")
    return Attempts(bench, wanted, bench.folder / results)


def eventually(happened: Callable[[], object]) -> None:
    """Wait until something has happened."""
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


class Meeting:
    """The places at which a process that runs the points waits for the test.

    Args:
        folder: holds a file for each place that was reached.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()

    def at(self, place: str) -> None:
        """Wait until the process has reached a place."""
        eventually((self._folder / place).exists)

    def is_over(self, place: str) -> None:
        """Let the process proceed from a place."""
        (self._folder / f"{place}-over").touch()


class Process:
    """The command for a run, in a process and a process group of its own."""

    def __init__(self, run: Attempts, *, checkpoints: float = OFTEN) -> None:
        spec = run.plan.spec
        words = ["run", "--task", spec.task, "--pruner", spec.pruner, "--profile", spec.profile]
        if spec.task == "points":
            words += ["--plugin", str(POINTS)]
        words += ["--results", str(run.results), "--checkpoint-every", str(checkpoints)]
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
        """What it printed on stderr."""
        return self._errors.read_text().splitlines()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, number)

    def send_to_group(self, number: signal.Signals) -> None:
        """Send a signal to the process and to all that it has started, as a terminal does."""
        os.killpg(self.pid, number)

    def code(self) -> int:
        """Wait for the end and return the exit code."""
        return self._process.wait(PATIENCE)

    def ends_within(self, seconds: float) -> bool:
        """Wait for the end for a limited time, and return whether it came."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    @property
    def group_is_empty(self) -> bool:
        """Whether everything that it started has ended."""
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return True
        return False


@pytest.fixture
def meeting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Meeting:
    """Let every process that runs the points wait for the test where it evaluates and measures."""
    folder = tmp_path / "meeting"
    monkeypatch.setenv(MEETING, str(folder))
    return Meeting(folder)


def test_a_process_that_waits_for_a_run_takes_it_over_when_the_other_is_killed(
    bench: Workbench, meeting: Meeting
) -> None:
    run = attempts(bench, "crop_u")
    first = Process(run)
    meeting.at("evaluating")
    second = Process(run)
    holder = f"{run.plan.run_id} is being run by process {first.pid}"
    eventually(lambda: f"{holder}; waiting for it to end" in second.lines)
    first.send(signal.SIGKILL)
    assert first.code() == -signal.SIGKILL
    meeting.is_over("evaluating")
    meeting.is_over("measuring")
    assert second.code() == 0
    record = Store(run.results).record(run.plan.run_id)
    assert record is not None
    assert outcome(record) == outcome(attempts(bench, "crop_u", "whole").go(checkpoints=NEVER))
    (resumed,) = record["provenance"]["resumed"]
    assert f"resuming from step {resumed['position']}" in second.lines
    assert (resumed["device"], resumed["threads"]) == (record["provenance"]["device"], 1)
    assert (record["cost"]["step_ms"] or 0) > 0
    assert {path.name for path in run.folder.iterdir()} == {
        "journal.jsonl",
        "lives.json",
        "lock",
        "network.safetensors",
        "record.json",
    }


@pytest.mark.parametrize(
    ("place", "number"), [("evaluating", signal.SIGTERM), ("measuring", signal.SIGINT)]
)
def test_a_signal_while_it_trains_or_is_measured_loses_nothing(
    bench: Workbench, meeting: Meeting, place: str, number: signal.Signals
) -> None:
    run = attempts(bench, "earlycrop_u", "stopped")
    process = Process(run)
    meeting.at("evaluating")
    if place == "measuring":
        meeting.is_over("evaluating")
        meeting.at("measuring")
    process.send_to_group(number)
    meeting.is_over(place)
    assert process.code() == 1
    assert process.lines[-1] == INTERRUPTED
    assert not any("Traceback" in line for line in process.lines)
    assert run.checkpoints
    eventually(lambda: process.group_is_empty)
    assert (run.folder / "network.safetensors").exists() == (place == "measuring")
    whole = attempts(bench, "earlycrop_u", "whole").go(checkpoints=NEVER)
    assert outcome(run.go()) == outcome(whole)


@pytest.mark.slow
def test_nothing_is_left_of_a_process_that_is_killed_while_it_measures(
    bench: Workbench, meeting: Meeting
) -> None:
    """The costs of an embedded run are measured in a process of its own."""
    run = attempts(bench, "dense", profile="embedded")
    process = Process(run)
    meeting.at("evaluating")
    meeting.is_over("evaluating")
    meeting.at("measuring")
    process.send(signal.SIGKILL)
    assert process.code() == -signal.SIGKILL
    assert not process.group_is_empty
    meeting.is_over("measuring")
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
def test_a_run_that_is_killed_at_random_moments_loses_nothing(
    bench: Workbench, task: str, pruner: str, seed: int
) -> None:
    whole = outcome(smoke(bench, task, pruner, "whole").go(checkpoints=NEVER))
    run, draw = smoke(bench, task, pruner, "killed"), random.Random(seed)
    for attempt in range(1, 5):
        process = Process(run, checkpoints=0.02)
        # If a kill came after the record was written, there is no further attempt.
        while len(RecordedAttempts(run.folder / "lives.json").entries) < attempt:
            if process.ends_within(0.01):
                break
        if process.ends_within(draw.uniform(0, 4)):
            assert process.code() == 0, process.lines
            break
        process.send_to_group(signal.SIGKILL)
        process.code()
    assert Process(run, checkpoints=0.02).code() == 0
    record = Store(run.results).record(run.plan.run_id)
    assert record is not None
    assert outcome(record) == whole


def test_a_full_disk_loses_nothing_however_much_room_is_left(
    bench: Workbench, small_disk: Path
) -> None:
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


def test_a_disk_that_becomes_read_only_loses_nothing(
    bench: Workbench, small_disk: Path, remount: Callable[[Path, str], None]
) -> None:
    whole = outcome(bench.run("earlycrop_u"))
    run = Attempts(bench, bench.plan("earlycrop_u"), small_disk)
    with pytest.raises(Interrupted):
        run.go(StopAfter(steps=9))
    remount(small_disk, "ro")
    with pytest.raises(RequestError, match=rf"^results folder {small_disk}: Read-only file system"):
        run.go()
    remount(small_disk, "rw")
    record = run.go()
    assert outcome(record) == whole
    assert record["provenance"]["resumed"][0]["position"] == 9
