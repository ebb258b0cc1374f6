"""However a run is cut short, the same request resumes it and ends with the same record."""

from __future__ import annotations

import functools
import json
import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.contracts import Killed, StopAfter
from harness.errors import Interrupted, RunFailed
from harness.results import provenance
from harness.storage.journal import Journal
from harness.storage.store import outcome
from harness.task import Batch, Split
from harness.training.trainer import Trainer
from tests.helpers.attempts import NEVER, Attempts, attempts
from tests.helpers.disk import (
    FailingDisk,
    Operation,
    full_disk,
    operation_number,
    read_only_folder,
    when,
)
from tests.helpers.workbench import WATCHING, Workbench

METHODS = ("earlycrop_u", "ltr", "watching", "cutting")


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """Runs of a small task, with methods that use everything that a run can do."""
    return Workbench(tmp_path, [WATCHING])


Whole = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The outcome of a method that is not interrupted; each method runs once."""
    bench = Workbench(tmp_path_factory.mktemp("whole"), [WATCHING])
    return functools.cache(lambda pruner: outcome(run_of(bench, pruner).go(checkpoints=NEVER)))


def run_of(bench: Workbench, pruner: str, name: str = "attempts") -> Attempts:
    shorter = {"epochs": "2", "rounds": "2"} if pruner == "ltr" else {}
    return attempts(bench, pruner, name, **shorter)


def interrupt(run: Attempts, steps: int = 9) -> None:
    """Stop a run after some steps and verbs, with a checkpoint after each."""
    with pytest.raises(Interrupted):
        run.go(StopAfter(steps=steps))


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


# Killed processes


def kill_at_each(bench: Workbench, whole: Whole, pruner: str, operations: range) -> None:
    for at in operations:
        run = run_of(bench, pruner, f"killed-{at}")
        with FailingDisk(operation_number(at)).in_use(), pytest.raises(Killed):
            run.go()
        assert outcome(run.go()) == whole(pruner)
        assert not list(run.folder.glob("*.unfinished"))
        assert run.checkpoints == []


def operations_of(bench: Workbench, pruner: str) -> int:
    """Return how many operations on the disk a run takes."""
    disk = FailingDisk()
    with disk.in_use():
        run_of(bench, pruner, "counted").go()
    return disk.operations


@pytest.mark.parametrize("pruner", METHODS)
def test_a_run_killed_at_some_operations_on_the_disk_loses_nothing(
    bench: Workbench, whole: Whole, pruner: str
) -> None:
    last = operations_of(bench, pruner)
    kill_at_each(bench, whole, pruner, range(4, last, last // 4))


@pytest.mark.slow
@pytest.mark.parametrize("pruner", METHODS)
def test_a_run_killed_at_any_operation_on_the_disk_loses_nothing(
    bench: Workbench, whole: Whole, pruner: str
) -> None:
    last = operations_of(bench, pruner)
    kill_at_each(bench, whole, pruner, range(1, last))


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        ("write", "journal.jsonl"),
        ("write", "lives.json"),
        ("write", "snapshot-000000.pt"),
        ("move", "snapshot-000001.pt"),
        ("write", "network.safetensors"),
        ("move", "network.safetensors"),
        ("write", "record.json.unfinished"),
        ("move", "record.json"),
    ],
)
def test_a_run_killed_while_it_writes_a_file_loses_nothing(
    bench: Workbench, whole: Whole, operation: Operation, name: str
) -> None:
    run = run_of(bench, "watching")
    disk = FailingDisk(when(operation, name, f"{name}.unfinished"))
    with disk.in_use(), pytest.raises(Killed):
        run.go()
    assert outcome(run.go()) == whole("watching")


@pytest.mark.parametrize("pruner", METHODS)
def test_a_run_killed_again_and_again_loses_nothing(
    bench: Workbench, whole: Whole, pruner: str
) -> None:
    assert killed_at_random(bench, pruner, seed=0) == whole(pruner)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 21))
@pytest.mark.parametrize("pruner", METHODS)
def test_a_run_killed_again_and_again_at_other_moments_loses_nothing(
    bench: Workbench, whole: Whole, pruner: str, seed: int
) -> None:
    assert killed_at_random(bench, pruner, seed) == whole(pruner)


def killed_at_random(bench: Workbench, pruner: str, seed: int) -> dict[str, Any]:
    """Return the outcome of a run that is killed every few operations on the disk."""
    run, draw = run_of(bench, pruner), random.Random(seed)
    while True:
        survives = draw.randint(10, 60)
        with FailingDisk(operation_number(survives + 1)).in_use():
            try:
                return outcome(run.go())
            except Killed:
                continue


def test_a_run_killed_in_the_middle_of_pruning_loses_nothing(
    bench: Workbench, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, points = run_of(bench, "earlycrop_u"), bench.points
    scoring_loss, calls = points.scoring_loss, 0

    def deadly(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 12:
            raise Killed
        return scoring_loss(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(points, "scoring_loss", deadly)
        with pytest.raises(Killed):
            run.go()
    assert outcome(run.go()) == whole("earlycrop_u")


def test_costs_add_up_over_all_attempts(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow_step(*arguments: Any) -> Batch:
        time.sleep(0.01)
        return step(*arguments)

    step = Trainer.step
    monkeypatch.setattr(Trainer, "step", slow_step)
    run = run_of(bench, "dense")
    interrupt(run, 5)
    interrupt(run, 5)
    record = run.go()
    assert record["cost"]["steps"] == 20
    assert record["cost"]["train_seconds"] >= 20 * 0.01


def test_the_record_says_where_each_attempt_resumed(bench: Workbench) -> None:
    run = run_of(bench, "dense")
    interrupt(run, 5)
    interrupt(run, 5)
    record = run.go()
    first, second = record["provenance"]["resumed"]
    assert (first["position"], second["position"]) == (5, 10)
    for attempt in (first, second):
        assert attempt["device"] == record["provenance"]["device"]
        assert attempt["threads"] == record["provenance"]["threads"]
        assert attempt["started"] >= record["provenance"]["started"]
    assert run_of(bench, "dense", "other").go()["provenance"]["resumed"] == []


def test_a_run_that_is_done_is_not_done_again(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(bench, "dense")
    record = run.go()
    monkeypatch.setattr(Trainer, "step", lambda *arguments: pytest.fail("the run is done again"))
    assert run.go() == json.loads(json.dumps(record))
    assert run.lines[-1] == f"{run.plan.run_id} is already done"


# Damaged files


def test_a_damaged_checkpoint_costs_one_step(bench: Workbench, whole: Whole) -> None:
    run = run_of(bench, "dense")
    interrupt(run, 9)
    flip_a_byte(run.checkpoints[-1])
    record = run.go()
    assert outcome(record) == whole("dense")
    assert record["provenance"]["resumed"][0]["position"] == 8


def test_two_damaged_checkpoints_restart_the_run(bench: Workbench, whole: Whole) -> None:
    run = run_of(bench, "watching")
    interrupt(run, 20)
    for checkpoint in run.checkpoints:
        cut_in_half(checkpoint)
    record = run.go()
    assert outcome(record) == whole("watching")
    assert record["provenance"]["resumed"][0]["position"] == 0


@pytest.mark.parametrize("damage", [flip_a_byte, Path.unlink])
@pytest.mark.parametrize("snapshot", ["snapshot-000000.pt", "snapshot-000001.pt"])
def test_a_damaged_snapshot_restarts_the_run(
    bench: Workbench, whole: Whole, damage: Callable[[Path], None], snapshot: str
) -> None:
    run = run_of(bench, "watching")
    interrupt(run, 20)
    damage(run.folder / snapshot)
    record = run.go()
    assert outcome(record) == whole("watching")
    assert record["provenance"]["resumed"][0]["position"] == 0


def test_a_snapshot_damaged_during_the_run_is_reported_and_then_rebuilt(
    bench: Workbench, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(bench, "watching")
    interrupt(run, 3)
    monkeypatch.setattr(
        "harness.storage.checkpoint.Checkpoints.has_snapshot", lambda *arguments: True
    )
    empty(run.folder / "snapshot-000000.pt")
    with pytest.raises(RunFailed, match=r"snapshot-000000.pt is missing or damaged; run again$"):
        run.go(checkpoints=NEVER)
    monkeypatch.undo()
    assert outcome(run.go()) == whole("watching")


@pytest.mark.parametrize(
    ("line", "damage"), [(0, flip_a_byte), (2, empty), (2, cut_in_half), (-1, cut_in_half)]
)
def test_a_damaged_journal_restarts_the_run_at_most(
    bench: Workbench, whole: Whole, damage: Callable[[Path], None], line: int
) -> None:
    run = run_of(bench, "watching")
    interrupt(run, 20)
    journal, part = run.folder / "journal.jsonl", run.folder / "part"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) >= 4
    part.write_bytes(lines[line])
    damage(part)
    lines[line] = part.read_bytes()
    journal.write_bytes(b"".join(lines))
    assert outcome(run.go()) == whole("watching")


def test_a_damaged_list_of_attempts_is_dropped(bench: Workbench, whole: Whole) -> None:
    run = run_of(bench, "dense")
    interrupt(run)
    cut_in_half(run.folder / "lives.json")
    record = run.go()
    assert outcome(record) == whole("dense")
    assert record["provenance"]["resumed"] == []


# Full disks, read-only folders and requests to stop


@pytest.mark.parametrize(
    ("name", "error", "why"),
    [
        ("owner.unfinished", full_disk, "No space left on device"),
        ("lives.json.unfinished", full_disk, "No space left on device"),
        ("journal.jsonl", full_disk, "No space left on device"),
        ("snapshot-000000.pt.unfinished", full_disk, "No space left on device"),
        ("checkpoint-000003.pt.unfinished", full_disk, "No space left on device"),
        ("record.json.unfinished", full_disk, "No space left on device"),
        ("journal.jsonl", read_only_folder, "Permission denied"),
        ("network.safetensors.unfinished", read_only_folder, "Permission denied"),
    ],
)
def test_a_disk_that_cannot_be_written_loses_nothing(
    bench: Workbench, whole: Whole, name: str, error: Callable[[], OSError], why: str
) -> None:
    run = run_of(bench, "watching")
    disk = FailingDisk(when("write", name), error)
    target = run.folder / name.removesuffix(".unfinished")
    with disk.in_use(), pytest.raises(RunFailed, match=f"^cannot write {target}: {why}$"):
        run.go()
    assert not list(run.folder.glob("*.unfinished"))
    assert outcome(run.go()) == whole("watching")


@pytest.mark.parametrize(
    ("pruner", "steps"),
    [("watching", 0), ("watching", 4), ("watching", 25), ("earlycrop_u", 11), ("ltr", 12)],
)
def test_a_run_that_is_asked_to_stop_resumes_where_it_stopped(
    bench: Workbench, whole: Whole, pruner: str, steps: int
) -> None:
    run = run_of(bench, pruner)
    with pytest.raises(Interrupted):
        run.go(StopAfter(steps=steps), checkpoints=NEVER)
    assert len(run.checkpoints) == 1
    assert outcome(run.go(checkpoints=NEVER)) == whole(pruner)


def test_a_run_that_is_asked_to_stop_every_few_steps_ends(bench: Workbench, whole: Whole) -> None:
    run = run_of(bench, "watching")
    for _ in range(100):
        try:
            record = run.go(StopAfter(steps=3), checkpoints=NEVER)
        except Interrupted:
            continue
        assert outcome(record) == whole("watching")
        return
    pytest.fail("the run never ends")


# Other machines


def on_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment be that of another machine."""
    environment = provenance.environment
    monkeypatch.setattr(provenance, "environment", lambda d: {**environment(d), "threads": 99})


def change_the_last_bits(journal: Path) -> None:
    """Change the journal to what another number of threads might have given."""
    entries = Journal(journal).entries
    changed = Journal(journal)
    changed.truncate(0)
    for entry in entries:
        for epoch in entry.event.get("epochs", ()):
            epoch["loss"] = math.nextafter(epoch["loss"], 1)
        changed.append(entry)


def begin_and_change(run: Attempts) -> None:
    """Carry out a run up to its last verb, which no checkpoint contains, and change its journal."""
    disk = FailingDisk(when("move", "checkpoint-000002.pt"))
    with pytest.raises(Interrupted):
        run.go(StopAfter(steps=2), checkpoints=NEVER)
    with disk.in_use(), pytest.raises(Killed):
        run.go(checkpoints=NEVER)
    change_the_last_bits(run.folder / "journal.jsonl")


def test_another_number_of_threads_is_recorded_and_may_change_the_last_bits(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(bench, "earlycrop_u")
    begin_and_change(run)
    with monkeypatch.context() as elsewhere:
        on_another_machine(elsewhere)
        record = run.go(checkpoints=NEVER)
    assert record["status"] == "done"
    assert [attempt["threads"] for attempt in record["provenance"]["resumed"]] == [1, 99]


def test_another_machine_is_noticed_even_if_it_left_no_checkpoint(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(bench, "earlycrop_u")
    disk = FailingDisk(when("move", "checkpoint-000001.pt"))
    with disk.in_use(), pytest.raises(Killed):
        run.go(checkpoints=NEVER)
    change_the_last_bits(run.folder / "journal.jsonl")
    on_another_machine(monkeypatch)
    assert run.go()["status"] == "done"


def test_on_the_same_machine_every_bit_must_agree_with_the_journal(bench: Workbench) -> None:
    run = run_of(bench, "earlycrop_u")
    begin_and_change(run)
    with pytest.raises(RunFailed, match="this run cannot be repeated: its verb 0, train"):
        run.go()


# Undefined numbers


def test_undefined_metrics_are_null_and_can_be_repeated(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = bench.points.evaluate

    def odd(task: Any, model: Any, split: Split) -> dict[str, float]:
        return {**evaluate(task, model, split), "perplexity": math.inf, "odd": math.nan}

    monkeypatch.setattr(bench.points, "evaluate", odd)
    run = run_of(bench, "earlycrop_u")
    disk = FailingDisk(when("move", "checkpoint-000001.pt"))
    with disk.in_use(), pytest.raises(Killed):
        run.go(checkpoints=NEVER)
    record = run.go()
    assert record["events"][0]["epochs"][0]["validation"]["perplexity"] is None
    assert record["quality"]["further"]["odd"] is None


@pytest.mark.parametrize("pruner", ["dense", "crop_u", "ltr"])
def test_a_run_that_diverges_ends_with_a_record(bench: Workbench, pruner: str) -> None:
    run = attempts(bench, pruner, learning_rate="1e30")
    record = run.go()
    assert record["status"] == "diverged"
    assert "the training loss became" in record["reason"]
    assert record["quality"]["test"] is None
    assert run.go() == json.loads(json.dumps(record))


def test_a_run_that_diverges_within_an_epoch_ends_with_a_record(bench: Workbench) -> None:
    diverging = bench.with_method(
        """
        run.train(steps=3)
        run.prune(Weights, crop, run.sparsity)
        run.train()
        """
    )
    assert attempts(diverging, "tried", learning_rate="1e30").go()["status"] == "diverged"
