"""Results folders are joined, and nothing is overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from records import RECORD, record

from harness.command_line import main
from harness.results.store import SCHEMA, Store

RUN = RECORD["run_id"]


def store(folder: Path, **changes: object) -> Store:
    """Return a results folder with one run that is done."""
    made = Store(folder)
    run = record(**changes)
    made.open_run(run["run_id"])
    (folder / run["run_id"] / "network.safetensors").write_bytes(b"weights")
    made.save(run)
    return made


def merge(target: Path, *folders: Path) -> int:
    return main(["merge", *map(str, folders), "--results", str(target)])


def test_what_is_missing_is_taken_with_all_its_files(tmp_path: Path) -> None:
    store(tmp_path / "theirs")
    assert merge(tmp_path / "ours", tmp_path / "theirs") == 0
    assert Store(tmp_path / "ours").record(RUN) == RECORD
    assert (tmp_path / "ours" / RUN / "network.safetensors").read_bytes() == b"weights"


def test_what_was_begun_here_gives_way_to_what_is_done_there(tmp_path: Path) -> None:
    store(tmp_path / "theirs")
    begun = Store(tmp_path / "ours").open_run(RUN)
    for name in ("checkpoint-000001.pt", "failure.json", "failure.txt", "journal.jsonl"):
        (begun / name).touch()
    assert merge(tmp_path / "ours", tmp_path / "theirs") == 0
    left = {path.name for path in begun.iterdir()}
    assert left - {"lock", "journal.jsonl"} == {"record.json", "network.safetensors"}


def test_equal_outcomes_at_other_costs_are_no_conflict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store(tmp_path / "ours")
    store(tmp_path / "theirs", cost__step_ms=99.0)
    assert merge(tmp_path / "ours", tmp_path / "theirs") == 0
    assert capsys.readouterr().out == "1 here before\n"
    assert Store(tmp_path / "ours").record(RUN) == RECORD


def test_a_conflict_is_shown_and_ours_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store(tmp_path / "ours")
    store(tmp_path / "theirs", quality__test=11.5)
    assert merge(tmp_path / "ours", tmp_path / "theirs") == 1
    said = capsys.readouterr().out.splitlines()
    assert said == [
        f"conflict: {RUN}: done 97.25 in {tmp_path / 'ours'}, done 11.5 in {tmp_path / 'theirs'}",
        "1 in conflict",
    ]
    assert Store(tmp_path / "ours").record(RUN) == RECORD


def test_a_failure_is_taken_unless_the_run_was_tried_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = record(status="failed", reason="out of memory")
    theirs = Store(tmp_path / "theirs")
    theirs.open_run(RUN)
    theirs.save_failure(failed, "Traceback")
    assert merge(tmp_path / "ours", tmp_path / "theirs") == 0
    assert capsys.readouterr().out == "1 taken that failed\n"
    ours = Store(tmp_path / "ours")
    assert ours.failure(RUN) == failed
    assert ours.failure_details(RUN) == "Traceback"

    done = store(tmp_path / "done")
    assert merge(tmp_path / "done", tmp_path / "theirs") == 0
    assert capsys.readouterr().out == "no runs\n"
    assert done.failure(RUN) is None


def test_what_was_asked_for_there_is_remembered_here(tmp_path: Path) -> None:
    store(tmp_path / "theirs")
    asked = tmp_path / "theirs" / "matrices" / "smoke-0a1b2c3d.json"
    asked.parent.mkdir()
    asked.write_text("{}")
    assert merge(tmp_path / "ours", tmp_path / "theirs") == 0
    assert (tmp_path / "ours" / "matrices" / asked.name).read_text() == "{}"


@pytest.mark.parametrize(
    ("folder", "complaint"), [("nowhere", "there is none"), ("ours", "is the one to merge into")]
)
def test_folders_that_cannot_be_merged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], folder: str, complaint: str
) -> None:
    store(tmp_path / "ours")
    assert merge(tmp_path / "ours", tmp_path / folder) == 2
    assert capsys.readouterr().err == f"error: results folder {tmp_path / folder}: {complaint}\n"


def test_a_folder_of_a_newer_schema_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is taken then, from another folder either."""
    store(tmp_path / "readable")
    store(tmp_path / "theirs", schema=SCHEMA + 1)
    assert merge(tmp_path / "ours", tmp_path / "readable", tmp_path / "theirs") == 2
    assert f"newer than {SCHEMA}" in capsys.readouterr().err
    assert json.loads((tmp_path / "theirs" / RUN / "record.json").read_text())
    assert Store(tmp_path / "ours").run_ids() == []
