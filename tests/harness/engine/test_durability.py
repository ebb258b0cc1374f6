"""Nothing is lost: whatever ends a run, asked for again it ends with the same record."""

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
from attempts import (
    NEVER,
    Attempts,
    Disk,
    Killed,
    StopAfter,
    attempts,
    full_disk,
    read_only_folder,
)
from workbench import Workbench

from harness.contracts import outcome
from harness.errors import Interrupted, RunFailed
from harness.results import provenance
from harness.storage.journal import Journal
from harness.task import Split
from harness.training.trainer import Trainer

WATCHING = Path(__file__).parent.parent / "watching.py"
METHODS = ("earlycrop_u", "ltr", "watching", "cutting")


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """Runs of a small task and one more method."""
    return Workbench(tmp_path, [WATCHING])


Whole = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The outcome of a method that was never interrupted, found out once."""
    bench = Workbench(tmp_path_factory.mktemp("whole"), [WATCHING])
    return functools.cache(lambda pruner: outcome(run_of(bench, pruner).go(checkpoints=NEVER)))


def run_of(bench: Workbench, pruner: str, name: str = "attempts") -> Attempts:
    shorter = {"epochs": "2", "rounds": "2"} if pruner == "ltr" else {}
    return attempts(bench, pruner, name, **shorter)


def interrupt(run: Attempts, chances: int = 9) -> None:
    """Stop a run after some steps and verbs, with a checkpoint after each."""
    with pytest.raises(Interrupted):
        run.go(StopAfter(chances=chances))


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


# --- kill -9 ---


def kill_at_each(bench: Workbench, whole: Whole, pruner: str, operations: range) -> None:
    for at in operations:
        run = run_of(bench, pruner, f"killed-{at}")
        disk = Disk(lambda number, operation, name, at=at: number == at)  # type: ignore[misc]
        with disk.in_use(), pytest.raises(Killed):
            run.go()
        assert outcome(run.go()) == whole(pruner)
        assert not list(run.folder.glob("*.unfinished"))
        assert run.checkpoints == []


def operations_of(bench: Workbench, pruner: str) -> int:
    """Return on how many occasions a run changes the disk."""
    disk = Disk()
    with disk.in_use():
        run_of(bench, pruner, "counted").go()
    return disk.operations


@pytest.mark.parametrize("pruner", METHODS)
def test_killed_at_a_change_of_the_disk(bench: Workbench, whole: Whole, pruner: str) -> None:
    last = operations_of(bench, pruner)
    kill_at_each(bench, whole, pruner, range(4, last, last // 4))


@pytest.mark.slow
@pytest.mark.parametrize("pruner", METHODS)
def test_killed_at_any_change_of_the_disk(bench: Workbench, whole: Whole, pruner: str) -> None:
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
def test_killed_while_writing_a_file(
    bench: Workbench, whole: Whole, operation: str, name: str
) -> None:
    run = run_of(bench, "watching")
    names = (name, f"{name}.unfinished")
    disk = Disk(lambda number, what, where: what == operation and where in names)
    with disk.in_use(), pytest.raises(Killed):
        run.go()
    assert outcome(run.go()) == whole("watching")


@pytest.mark.parametrize("pruner", METHODS)
def test_killed_again_and_again(bench: Workbench, whole: Whole, pruner: str) -> None:
    assert killed_at_random(bench, pruner, seed=0) == whole(pruner)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 21))
@pytest.mark.parametrize("pruner", METHODS)
def test_killed_again_and_again_otherwise(
    bench: Workbench, whole: Whole, pruner: str, seed: int
) -> None:
    assert killed_at_random(bench, pruner, seed) == whole(pruner)


def killed_at_random(bench: Workbench, pruner: str, seed: int) -> dict[str, Any]:
    """Return the outcome of a run that is killed after every few changes of the disk."""
    run, draw = run_of(bench, pruner), random.Random(seed)
    while True:
        survives = draw.randint(10, 60)
        with Disk(lambda number, *_: number > survives).in_use():  # noqa: B023 - used at once
            try:
                return outcome(run.go())
            except Killed:
                continue


def test_killed_in_the_middle_of_pruning(
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


def test_costs_add_up_over_all_lives(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow_step(*arguments: Any) -> None:
        time.sleep(0.01)
        step(*arguments)

    step = Trainer.step
    monkeypatch.setattr(Trainer, "step", slow_step)
    run = run_of(bench, "dense")
    interrupt(run, 5)
    interrupt(run, 5)
    record = run.go()
    assert record["cost"]["steps"] == 20
    assert record["cost"]["train_seconds"] >= 20 * 0.01


def test_the_record_says_where_it_went_on(bench: Workbench) -> None:
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
    monkeypatch.setattr(Trainer, "step", lambda *arguments: pytest.fail("it is done again"))
    assert run.go() == json.loads(json.dumps(record))
    assert run.lines[-1] == f"{run.plan.run_id} was done before"


# --- damage ---


def test_a_damaged_checkpoint_costs_one_step(bench: Workbench, whole: Whole) -> None:
    run = run_of(bench, "dense")
    interrupt(run, 9)
    flip_a_byte(run.checkpoints[-1])
    record = run.go()
    assert outcome(record) == whole("dense")
    assert record["provenance"]["resumed"][0]["position"] == 8


def test_two_damaged_checkpoints_cost_a_new_start(bench: Workbench, whole: Whole) -> None:
    run = run_of(bench, "watching")
    interrupt(run, 20)
    for checkpoint in run.checkpoints:
        cut_in_half(checkpoint)
    record = run.go()
    assert outcome(record) == whole("watching")
    assert record["provenance"]["resumed"][0]["position"] == 0


@pytest.mark.parametrize("damage", [flip_a_byte, Path.unlink])
@pytest.mark.parametrize("snapshot", ["snapshot-000000.pt", "snapshot-000001.pt"])
def test_a_damaged_snapshot_costs_a_new_start(
    bench: Workbench, whole: Whole, damage: Callable[[Path], None], snapshot: str
) -> None:
    run = run_of(bench, "watching")
    interrupt(run, 20)
    damage(run.folder / snapshot)
    record = run.go()
    assert outcome(record) == whole("watching")
    assert record["provenance"]["resumed"][0]["position"] == 0


def test_a_snapshot_damaged_meanwhile_is_told_and_then_mended(
    bench: Workbench, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(bench, "watching")
    interrupt(run, 3)
    monkeypatch.setattr(
        "harness.storage.checkpoint.Checkpoints.has_snapshot", lambda *arguments: True
    )
    empty(run.folder / "snapshot-000000.pt")
    with pytest.raises(RunFailed, match=r"snapshot-000000.pt: is missing or damaged; run again$"):
        run.go(checkpoints=NEVER)
    monkeypatch.undo()
    assert outcome(run.go()) == whole("watching")


@pytest.mark.parametrize(
    ("line", "damage"), [(0, flip_a_byte), (2, empty), (2, cut_in_half), (-1, cut_in_half)]
)
def test_a_damaged_journal_costs_a_new_start_at_most(
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


def test_damaged_lives_are_forgotten(bench: Workbench, whole: Whole) -> None:
    run = run_of(bench, "dense")
    interrupt(run)
    cut_in_half(run.folder / "lives.json")
    record = run.go()
    assert outcome(record) == whole("dense")
    assert record["provenance"]["resumed"] == []


# --- full disks, read-only folders, being asked to stop ---


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
def test_a_disk_that_takes_no_more_loses_nothing(
    bench: Workbench, whole: Whole, name: str, error: Callable[[], OSError], why: str
) -> None:
    run = run_of(bench, "watching")
    disk = Disk(lambda number, operation, where: (operation, where) == ("write", name), error)
    target = run.folder / name.removesuffix(".unfinished")
    with disk.in_use(), pytest.raises(RunFailed, match=f"^cannot write {target}: {why}$"):
        run.go()
    assert not list(run.folder.glob("*.unfinished"))
    assert outcome(run.go()) == whole("watching")


@pytest.mark.parametrize(
    ("pruner", "chances"),
    [("watching", 0), ("watching", 4), ("watching", 25), ("earlycrop_u", 11), ("ltr", 12)],
)
def test_a_run_that_is_asked_to_stop_goes_on_from_there(
    bench: Workbench, whole: Whole, pruner: str, chances: int
) -> None:
    run = run_of(bench, pruner)
    with pytest.raises(Interrupted):
        run.go(StopAfter(chances=chances), checkpoints=NEVER)
    assert len(run.checkpoints) == 1
    assert outcome(run.go(checkpoints=NEVER)) == whole(pruner)


def test_a_run_that_is_asked_to_stop_every_few_steps_ends(bench: Workbench, whole: Whole) -> None:
    run = run_of(bench, "watching")
    for _ in range(100):
        try:
            record = run.go(StopAfter(chances=3), checkpoints=NEVER)
        except Interrupted:
            continue
        assert outcome(record) == whole("watching")
        return
    pytest.fail("it never ends")


# --- other machines ---


def on_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = provenance.environment
    monkeypatch.setattr(provenance, "environment", lambda d: {**environment(d), "threads": 99})


def change_the_last_bits(journal: Path) -> None:
    """Make the journal say what another number of threads might have given."""
    entries = Journal(journal).entries
    changed = Journal(journal)
    changed.truncate(0)
    for entry in entries:
        for epoch in entry.event.get("epochs", ()):
            epoch["loss"] = math.nextafter(epoch["loss"], 1)
        changed.append(entry)


def begin_and_change(run: Attempts) -> None:
    """Carry out a run but for its end; no checkpoint covers the last verb."""
    disk = Disk(lambda number, operation, name: name == "checkpoint-000002.pt")
    with pytest.raises(Interrupted):
        run.go(StopAfter(chances=2), checkpoints=NEVER)
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


def test_a_machine_counts_even_if_it_left_no_checkpoint(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(bench, "earlycrop_u")
    with (
        Disk(lambda number, operation, name: name == "checkpoint-000001.pt").in_use(),
        pytest.raises(Killed),
    ):
        run.go(checkpoints=NEVER)
    change_the_last_bits(run.folder / "journal.jsonl")
    on_another_machine(monkeypatch)
    assert run.go()["status"] == "done"


def test_on_the_same_machine_every_bit_must_be_as_the_journal_says(bench: Workbench) -> None:
    run = run_of(bench, "earlycrop_u")
    begin_and_change(run)
    with pytest.raises(RunFailed, match="this run cannot be repeated: its verb 0, train"):
        run.go()


# --- odd numbers ---


def test_metrics_that_are_no_numbers_are_null_and_can_be_repeated(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = bench.points.evaluate

    def odd(task: Any, model: Any, split: Split) -> dict[str, float]:
        return {**evaluate(task, model, split), "perplexity": math.inf, "odd": math.nan}

    monkeypatch.setattr(bench.points, "evaluate", odd)
    run = run_of(bench, "earlycrop_u")
    with (
        Disk(lambda number, operation, name: name == "checkpoint-000001.pt").in_use(),
        pytest.raises(Killed),
    ):
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
