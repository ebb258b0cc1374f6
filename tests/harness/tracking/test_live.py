"""Trackers in a process beside the runs: they see all of them, and disturb none."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from harness.contracts import StopAfter
from harness.errors import Interrupted
from harness.results.records import pending_record
from harness.storage.store import Store
from harness.tracking import live
from harness.tracking.following import FOLDER, followed_run
from harness.tracking.history import read_history
from tests.helpers.attempts import attempts
from tests.helpers.commands import Command
from tests.helpers.trackers import read_diary, steps_in
from tests.helpers.workbench import POINTS, Workbench

RUN = ("run", "--task", "points", "--profile", "smoke", "--plugin", POINTS)
DIARIES = Path("results", FOLDER, "diary")


def warnings(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("warning: ")]


def test_a_run_is_followed_to_its_end(command: Command) -> None:
    said = command(*RUN, "--pruner", "crop_u", "--track", "diary")
    assert (said.code, warnings(said.err)) == (0, [])
    (run,) = Store(Path("results")).run_ids()
    diary = read_diary(DIARIES)
    assert steps_in(diary) == [p.step for p in read_history(Path("results", run)).points]
    assert (diary[0][0], diary[-1][0]) == ("begun", "done")
    again = command(*RUN, "--pruner", "crop_u", "--track", "diary")
    assert again.code == 0
    assert read_diary(DIARIES) == diary


def test_values_arrive_while_the_run_goes_on(tmp_path: Path, bench: Workbench) -> None:
    run = attempts(bench, "dense")
    followed = followed_run(pending_record(run.plan), run.folder)
    with live.tracked(["diary"], [followed], run.results):
        with pytest.raises(Interrupted):
            run.go(StopAfter(steps=12))
        told: list[Any] = []
        end = time.monotonic() + 60
        while len(told) < 3 and time.monotonic() < end:
            time.sleep(0.1)
            if list(run.results.glob(f"{FOLDER}/diary/*.diary")):
                told = read_diary(run.results / FOLDER / "diary")
        assert [what for what, _ in told] == ["begun", 5, 10]
        run.go()
    assert steps_in(read_diary(run.results / FOLDER / "diary")) == [5, 10, 15, 20]


def test_a_matrix_is_followed_with_the_runs_that_were_done_before(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.executors.debug import Debug

    monkeypatch.setattr("harness.matrix.request.find_executor", lambda name: Debug)
    command(*RUN, "--pruner", "dense")
    words = ("--tasks", "points", "--pruners", "dense,snip", "--profile", "smoke")
    said = command("matrix", *words, "--plugin", POINTS, "--track", "diary")
    assert (said.code, warnings(said.err)) == (0, [])
    runs = Store(Path("results")).run_ids()
    assert sorted(path.stem for path in DIARIES.glob("*.diary")) == runs
    assert len(runs) == 2


@pytest.mark.parametrize(
    ("tracker", "warning"),
    [
        ("rude", "the process of the trackers has crashed (exit code 3)"),
        ("slow", "the trackers have not finished 0.5 seconds after the runs, and are stopped"),
        ("forgetful", "tracker 'forgetful' has failed, and is not used any further: Connect"),
    ],
)
def test_a_tracker_that_fails_costs_a_run_one_line(
    command: Command, monkeypatch: pytest.MonkeyPatch, tracker: str, warning: str
) -> None:
    monkeypatch.setattr(live, "PATIENCE", 0.5 if tracker == "slow" else 60.0)
    said = command(*RUN, "--pruner", "crop_u", "--track", tracker)
    assert said.code == 0
    (line,) = warnings(said.err)
    assert line.startswith(f"warning: {warning}")
    assert Store(Path("results")).find("points-crop_u")["status"] == "done"


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("diry", "error: unknown tracker 'diry'; did you mean 'diary'?"),
        ("absent", "error: tracker 'absent': no_such_package is not installed; pip install"),
        (",", "error: argument --track: ',' names nothing"),
    ],
)
def test_a_tracker_that_is_not_there_is_refused_before_the_run(
    command: Command, name: str, complaint: str
) -> None:
    said = command(*RUN, "--pruner", "dense", "--track", name)
    assert said.code == 2
    assert said.err.startswith(complaint)
    assert len(said.err.splitlines()) == 1
    assert not Path("results").exists()
