"""Methods with mistakes: each run ends with one line, and none counts as done."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from harness.command_line import main
from harness.contracts import Killed, StopAfter
from harness.errors import Interrupted, RunFailed, Skip
from harness.storage.store import Store
from tests.helpers.attempts import NEVER, OFTEN, Attempts, attempts
from tests.helpers.disk import FailingDisk, full_disk, when
from tests.helpers.workbench import POINTS, Workbench


def tried(bench: Workbench, body: str, **request: str) -> Attempts:
    """Return attempts at a run of a method with this body."""
    return attempts(bench.with_method(body), "tried", **request)


def last_plugin(bench: Workbench) -> Path:
    """Return the file of the method that was tried last."""
    return sorted(bench.folder.glob("tried-*/tried.py"))[-1]


# Mistakes in a plug-in


def test_a_mistake_is_reported_in_one_line_with_its_place(bench: Workbench) -> None:
    run = tried(bench, "run.train(epochs=1)\nrun.train(epochs=1 // 0)")
    where = last_plugin(bench).read_text().splitlines().index("    run.train(epochs=1 // 0)") + 1
    with pytest.raises(RunFailed) as failure:
        run.go()
    assert str(failure.value) == (
        f"tried.py, line {where}: ZeroDivisionError: integer division or modulo by zero "
        "(more in failure.txt)"
    )


def test_a_mistake_inside_a_call_is_reported_at_the_line_of_the_plug_in(bench: Workbench) -> None:
    run = tried(bench, "run.prune(Weights, lambda scoring: {}['missing'], run.sparsity)")
    with pytest.raises(RunFailed, match=r"^tried.py, line \d+: KeyError: 'missing' \(more"):
        run.go()


def test_a_failed_run_leaves_a_record_and_a_traceback_and_is_not_done(
    bench: Workbench,
) -> None:
    run = tried(bench, "raise ValueError('first line\\nsecond line')")
    with pytest.raises(RunFailed):
        run.go()
    store = Store(run.results)
    record = store.failure(run.plan.run_id)
    assert record is not None
    assert record["status"] == "failed"
    assert str(record["reason"]).endswith("ValueError: first line (more in failure.txt)")
    assert record["spec"]["pruner"] == "tried"
    assert "Traceback" in (run.folder / "failure.txt").read_text()
    assert "second line" in (run.folder / "failure.txt").read_text()
    assert store.record(run.plan.run_id) is None
    assert store.run_ids() == []


def test_a_method_that_does_not_apply_is_skipped_and_leaves_nothing(bench: Workbench) -> None:
    body = """
    from harness.errors import Skip
    def penalty(model):
        raise Skip("the network has no gates")
    run.train(penalty=penalty)
    """
    run = tried(bench, body)
    with pytest.raises(Skip) as reason:
        run.go()
    assert str(reason.value) == "tried on points: the network has no gates"
    assert not run.folder.exists()
    arguments = ["--task", "points", "--pruner", "tried", "--profile", "smoke"]
    plugins = ["--plugin", str(POINTS), "--plugin", str(last_plugin(bench))]
    assert main(["run", *arguments, *plugins, "--results", str(run.results)]) == 2


def test_a_failed_run_is_tried_again_and_a_success_removes_the_failure(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = """
    import os
    run.prune(Weights, crop, run.sparsity)
    run.train()
    os.environ["NEEDED"]
    """
    run = tried(bench, body)
    with pytest.raises(RunFailed, match="KeyError: 'NEEDED'"):
        run.go()
    monkeypatch.setenv("NEEDED", "1")
    assert run.go()["status"] == "done"
    assert not (run.folder / "failure.json").exists()
    assert not (run.folder / "failure.txt").exists()


def test_a_failure_that_cannot_be_written_is_reported_nevertheless(bench: Workbench) -> None:
    run = tried(bench, "raise ValueError('too bad')")
    disk = FailingDisk(when("write", "failure.txt.unfinished"), full_disk)
    with disk.in_use(), pytest.raises(RunFailed, match="ValueError: too bad"):
        run.go()


def test_the_command_line_reports_a_failure_in_one_line(
    bench: Workbench, capsys: pytest.CaptureFixture[str]
) -> None:
    tried(bench, "raise ValueError('too bad')")
    words = f"run --task points --pruner tried --profile smoke --json --results {bench.folder}/new"
    plugins = ["--plugin", str(POINTS), "--plugin", str(last_plugin(bench))]
    assert main([*words.split(), *plugins]) == 1
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("failed: tried.py, line ")
    assert line.endswith("ValueError: too bad (more in failure.txt)")
    assert json.loads(printed.out.splitlines()[-1])["status"] == "failed"


@pytest.mark.parametrize("score", ["float('nan')", "float('inf')"])
def test_an_undefined_score_is_reported(bench: Workbench, score: str) -> None:
    body = f"""
    def odd(scoring):
        return {{name: x.detach() * {score} for name, x in scoring.variables.items()}}
    run.prune(Weights, odd, run.sparsity)
    run.train()
    """
    with pytest.raises(RunFailed, match=r"^the criterion gave '0.weight' a score that is not a"):
        tried(bench, body).go()


# Methods that break the rules


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (
            "run.prune(Weights, crop, run.sparsity)\nrun.train(epochs=3)",
            "^tried ended after 15 of 20 steps; every method trains for the whole budget",
        ),
        (
            "start = run.snapshot()\nrun.train()\nrun.rewind(start)\nrun.train()",
            "^the budget of 4 epochs is spent; a method that by nature needs more says so",
        ),
        (
            "run.prune(Weights, crop, run.sparsity / 2)\nrun.train()",
            "^tried removed 0.400000 of the weights; it was asked to remove 0.800000$",
        ),
        ("run.train()", "^tried removed 0.000000 of the weights; it was asked to remove 0.800000$"),
        (
            "run.prune(Weights, crop, 0.9)\nrun.train()",
            "^tried removed 0.900000 of the weights; it was asked to remove 0.800000$",
        ),
    ],
)
def test_a_method_that_misses_its_budget_or_sparsity_fails(
    bench: Workbench, body: str, complaint: str
) -> None:
    run = tried(bench, body)
    for _ in range(2):
        with pytest.raises(RunFailed, match=complaint):
            run.go()


# Methods that are not deterministic


def resume_tomorrow(
    run: Attempts, monkeypatch: pytest.MonkeyPatch, steps: int, complaint: str
) -> None:
    """Interrupt a run, and resume it when the clock shows another time."""
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with pytest.raises(Interrupted):
        run.go(StopAfter(steps=steps), checkpoints=OFTEN)
    monkeypatch.setattr(time, "time", lambda: 1.0)
    with pytest.raises(RunFailed, match=complaint):
        run.go()


EARLY_OR_LATE = """
import time
run.train(epochs=1 + int(time.time()))
run.prune(Weights, crop, run.sparsity)
run.train()
"""


@pytest.mark.parametrize("steps", [3, 12])
def test_a_program_that_calls_a_verb_with_other_arguments_is_noticed(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """It is noticed inside the verb, before the journal contains it, and after it."""
    complaint = (
        r"^this program is not deterministic: "
        r"its verb 0 was train\(1, .*\) and is now train\(2, .*\)$"
    )
    resume_tomorrow(tried(bench, EARLY_OR_LATE), monkeypatch, steps, complaint)


def test_a_program_that_calls_another_verb_is_noticed_inside_the_verb(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = """
    import time
    if time.time():
        run.prune(Weights, crop, run.sparsity)
    run.train()
    """
    complaint = r"^this program is not deterministic: its verb 0 was train\(.*is now prune\("
    resume_tomorrow(tried(bench, body), monkeypatch, 3, complaint)


@pytest.mark.parametrize("steps", [14, 16, 23])
def test_a_program_that_ends_earlier_is_noticed(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """It is noticed inside a verb that is no longer called, and after it."""
    body = """
    import time
    run.prune(Weights, crop, run.sparsity)
    run.train(epochs=2)
    if not time.time():
        run.train(steps=3)
        run.train()
    """
    complaint = "^this program is not deterministic: it ended earlier than it did before$"
    resume_tomorrow(tried(bench, body), monkeypatch, steps, complaint)


def test_a_criterion_that_is_not_deterministic_is_noticed(bench: Workbench) -> None:
    body = """
    import random
    dice = random.SystemRandom()
    def lottery(scoring):
        drawn = lambda weight: dice.random()
        return {name: x.detach().clone().apply_(drawn) for name, x in scoring.variables.items()}
    run.prune(Weights, lottery, run.sparsity)
    run.train()
    """
    run = tried(bench, body)
    disk = FailingDisk(when("move", "checkpoint-000001.pt"))
    with disk.in_use(), pytest.raises(Killed):
        run.go(checkpoints=NEVER)
    complaint = (
        r"^this run cannot be repeated: its verb 0, prune\(.*\), "
        r"did not give what the journal says$"
    )
    with pytest.raises(RunFailed, match=complaint):
        run.go()
