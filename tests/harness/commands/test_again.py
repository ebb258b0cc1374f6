"""``--dry-run`` and ``--again``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.record import Record
from harness.storage.store import Store
from tests.helpers.commands import Command
from tests.helpers.workbench import POINTS

RUN = ("run", "--task", "points", "--plugin", POINTS, "--profile", "smoke")
MATRIX = ("matrix", "--tasks", "points", "--plugin", POINTS, "--profile", "smoke")

FAILING_ONCE = """
from pathlib import Path
from harness.registry import pruner

@pruner("moody", title="Moody")
def moody(run):
    if Path("bad").exists():
        raise ValueError("bad mood")
    run.train()
"""


def the_record() -> Record:
    (record,) = Store(Path("results")).records()
    return record


def everything(folder: Path) -> dict[str, int]:
    return {
        str(path): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }


class TestDryRun:
    def test_it_shows_what_would_be_run_and_writes_nothing(
        self, command: Command, tmp_path: Path
    ) -> None:
        said = command(*MATRIX, "--pruners", "dense,snip", "--seeds", "0-1", "--dry-run")
        assert said.code == 0
        *runs, summary = said.out.splitlines()
        assert [line.split("-seed")[0] for line in runs] == [
            "waiting   points-dense-0",
            "waiting   points-snip-0.8",
            "waiting   points-dense-0",
            "waiting   points-snip-0.8",
        ]
        assert summary == "command-line: 4 runs: 4 waiting"
        assert everything(tmp_path) == {}

    def test_done_and_waiting_runs_are_distinguished(
        self, command: Command, tmp_path: Path
    ) -> None:
        command(*RUN, "--pruner", "dense")
        before = everything(tmp_path)
        words = (*MATRIX, "--pruners", "dense,snip", "--dry-run", "--json")
        *_, summary, last = command(*words).out.splitlines()
        assert summary == "command-line: 2 runs: 1 done, 1 waiting"
        assert sorted(json.loads(last)["runs"].values()) == ["done", "waiting"]
        *_, summary, _ = command(*words, "--again").out.splitlines()
        assert summary == "command-line: 2 runs: 2 waiting"
        assert command(*RUN, "--pruner", "dense", "--dry-run").out.startswith("done      points-d")
        assert command(*RUN, "--pruner", "snip", "--dry-run").out.startswith("waiting   points-s")
        assert everything(tmp_path) == before

    def test_a_failed_run_would_be_retried(self, command: Command, tmp_path: Path) -> None:
        (tmp_path / "moody.py").write_text(FAILING_ONCE)
        (tmp_path / "bad").touch()
        words = (*RUN, "--pruner", "moody", "--sparsity", "0", "--plugin", "moody.py")
        assert command(*words).code == 1
        assert command(*words, "--dry-run").out.rstrip().endswith("  (failed before)")


class TestAgain:
    def test_a_repeated_run_replaces_the_old_one(self, command: Command) -> None:
        command(*RUN, "--pruner", "snip")
        old = the_record()
        said = command(*RUN, "--pruner", "snip", "--again")
        assert said.code == 0
        assert (
            said.err.splitlines()[-1] == "the new result is equal to the old one, apart from costs"
        )
        assert the_record()["cost"]["train_seconds"] != old["cost"]["train_seconds"]
        assert [path.name for path in Path("results").iterdir()] == [old["run_id"]]

    def test_an_unfinished_run_is_simply_run(self, command: Command) -> None:
        assert command(*RUN, "--pruner", "dense", "--again").code == 0
        assert the_record()["status"] == "done"

    def test_a_damaged_record_is_replaced(self, command: Command) -> None:
        command(*RUN, "--pruner", "dense")
        (path,) = Path("results").glob("*/record.json")
        path.write_text("{")
        assert command(*RUN, "--pruner", "dense").code == 2
        assert command(*RUN, "--pruner", "dense", "--again").code == 0
        assert the_record()["status"] == "done"

    def test_the_old_result_stays_if_the_new_run_fails(
        self, command: Command, tmp_path: Path
    ) -> None:
        (tmp_path / "moody.py").write_text(FAILING_ONCE)
        words = (*RUN, "--pruner", "moody", "--sparsity", "0", "--plugin", "moody.py")
        command(*words)
        old = the_record()
        (tmp_path / "bad").touch()
        assert command(*words, "--again").code == 1
        assert the_record() == old
        assert "1 run being repeated: 1 failed" in command("status").out
        (tmp_path / "bad").unlink()
        assert command(*words, "--again").code == 0
        assert the_record()["status"] == "done"
        assert not Path("results", "again").exists()

    def test_a_result_is_not_lost_if_its_replacement_is_interrupted(
        self, command: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        command(*RUN, "--pruner", "dense")
        with monkeypatch.context() as patch:
            patch.setattr(Store, "replace", lambda store, run_id: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                command(*RUN, "--pruner", "dense", "--again")
        assert the_record()["status"] == "done"
        said = command(*RUN, "--pruner", "dense", "--again")
        assert "is already done" in said.err
        assert not Path("results", "again").exists()

    def test_a_matrix_is_repeated(self, command: Command) -> None:
        words = (*MATRIX, "--pruners", "dense,snip")
        command(*RUN, "--pruner", "dense")
        (old,) = Store(Path("results")).records()
        said = command(*words, "--again")
        assert said.code == 0
        assert said.out.startswith("command-line: 2 runs: 2 done\n")
        new = {record["run_id"]: record for record in Store(Path("results")).records()}
        assert len(new) == 2
        assert new[old["run_id"]]["cost"]["train_seconds"] != old["cost"]["train_seconds"]
        assert not Path("results", "again").exists()
        assert "2 were already done" in command(*words).out
