"""``advise``, from its arguments to its verdict, with each run in this process."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

import harness
from harness.storage.store import Store
from tests.helpers.commands import Command
from tests.helpers.workbench import POINTS

DIGITS = (
    *("advise", "--task", "digits", "--profile", "smoke", "--executor", "debug"),
    *("--set", "epochs=2", "--pruners", "snap,slim_dense,random_s", "--seeds", "0-2"),
)

POINTS_WORDS = (
    *("advise", "--task", "points", "--plugin", POINTS, "--profile", "smoke"),
    *("--executor", "debug", "--pruners", "snip,random_u", "--seeds", "0-2"),
)

BROKEN = """
from harness.registry import pruner

@pruner("broken", title="Broken")
def broken(run):
    1 / 0

@pruner("broken_too", title="Broken, too")
def broken_too(run):
    1 / 0
"""


def records() -> dict[str, float]:
    """Return when the record of each run was written."""
    folder = Path("results")
    return {run: (folder / run / "record.json").stat().st_mtime for run in Store(folder).run_ids()}


def test_a_stranger_learns_which_method_to_take_and_a_second_call_trains_nothing(
    command: Command,
) -> None:
    said = command(*DIGITS, "--budget", "macs=0.5")
    assert said.code == 0, said.err
    assert said.out.startswith("digits, macs=0.5: 3 methods in 2 rounds, ")
    assert "\nTake " in said.out
    assert "snap, slim_dense, random_s with 2 seeds each" in said.err
    assert "dense with 3 seeds each" in said.err
    before = records()
    # Three methods with two seeds, two of them with a third one, and dense networks.
    assert len(before) == 3 * 2 + 2 + 3

    again = command(*DIGITS, "--budget", "macs=0.5", "--json")
    assert records() == before
    assert "starts" not in again.err
    advice = json.loads(again.out)
    assert advice["verdict"].startswith(f"Take {advice['take']}")
    assert [len(each["seeds"]) for each in advice["candidates"]] == [3, 3, 2]
    assert all(each["reached"] <= 0.5 for each in advice["candidates"])

    # The command of the advice finds the network that is there.
    assert advice["run"] in before
    made = command(*shlex.split(advice["command"])[3:])
    assert made.code == 0
    assert f"{advice['run']} is already done" in made.err


def test_python_says_the_same_and_repeats_only_what_was_lost(command: Command) -> None:
    said = command(*POINTS_WORDS, "--sparsity", "0.5", "--json")
    before = records()
    lost = next(run for run in before if "-snip-" in run)
    (Path("results") / lost / "record.json").unlink()

    advice = harness.advise(
        "points",
        ["snip", "random_u"],
        sparsity=0.5,
        seeds=range(3),
        profile="smoke",
        plugins=POINTS,
        executor="debug",
    )

    assert {run for run, written in records().items() if written != before[run]} == {lost}
    assert advice.verdict == json.loads(said.out)["verdict"]
    assert advice.finalists is not None
    assert advice.finalists.interval.n == 3


def test_a_method_that_fails_is_out_and_the_others_go_on(command: Command, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    words = ("--pruners", "snip,broken,random_u", "--plugin", "broken.py", "--sparsity", "0.5")
    said = command(*POINTS_WORDS, *words)
    assert said.code == 0
    assert "  broken is out: failed with seed 0: broken.py, line 6: ZeroDivisionError" in said.out
    assert (
        command(*POINTS_WORDS, *words[:2], *words[2:], "--pruners", "broken,broken_too").code == 1
    )


def test_a_budget_that_nobody_can_reach_is_refused_in_one_line_before_training(
    command: Command,
) -> None:
    said = command(*DIGITS, "--budget", "macs=0.0001")
    assert said.code == 2
    (line,) = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: macs=0.0001: no method can do it: ")
    assert "the nearest is macs=" in line
    assert not records()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--task", "digitz"), "unknown task 'digitz'; did you mean 'digits'?"),
        (("--set", "epoch=2"), "unknown setting 'epoch' for all of these runs; did you mean"),
        (("--pruners", "snap"), "advise compares methods, and snap is only one"),
        (("--seeds", "x"), "--seeds x is not a list of numbers"),
    ],
)
def test_a_mistake_is_one_line(command: Command, words: tuple[str, str], complaint: str) -> None:
    said = command(*DIGITS, "--budget", "macs=0.5", *words)
    assert said.code == 2
    assert said.err.splitlines()[-1].startswith(f"error: {complaint}")
    assert said.out == ""
    assert not Path("results").exists()


def test_without_a_task_or_a_target_it_says_what_is_missing(command: Command) -> None:
    assert "--task is missing" in command("advise", "--budget", "macs=0.5").err
    assert "either a budget" in command("advise", "--task", "digits").err
