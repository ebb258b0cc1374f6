"""Results folders are joined, and nothing is overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.command_line import main
from harness.record import SCHEMA
from harness.storage.measurements import measurements, save_measurement
from harness.storage.store import Store
from tests.helpers.records import RECORD, record

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


def test_what_is_missing_is_copied_with_all_its_files(tmp_path: Path) -> None:
    store(tmp_path / "theirs")
    assert merge(tmp_path / "ours", tmp_path / "theirs") == 0
    assert Store(tmp_path / "ours").record(RUN) == RECORD
    assert (tmp_path / "ours" / RUN / "network.safetensors").read_bytes() == b"weights"


def test_measurements_of_machines_that_have_not_measured_here_are_copied(tmp_path: Path) -> None:
    def measured(folder: Path, machine: str, milliseconds: float) -> None:
        cost = {"step_ms": milliseconds}
        measurement = {"machine": machine, "taken": "2026", "environment": {}, "cost": cost}
        save_measurement(store(folder).folder / RUN, measurement)

    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    measured(theirs, "a", 1.0)
    assert merge(ours, theirs) == 0
    measured(theirs, "a", 2.0)
    measured(theirs, "b", 3.0)
    assert merge(ours, theirs) == 0
    assert sorted(each["cost"]["step_ms"] for each in measurements(ours / RUN)) == [1.0, 3.0]


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
    assert capsys.readouterr().out == "1 already here\n"
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


def test_a_failure_is_copied_unless_the_run_was_tried_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = record(status="failed", reason="out of memory")
    theirs = Store(tmp_path / "theirs")
    theirs.open_run(RUN)
    theirs.save_failure(failed, "Traceback")
    assert merge(tmp_path / "ours", tmp_path / "theirs") == 0
    assert capsys.readouterr().out == "1 failed (record copied)\n"
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
    ("folder", "complaint"), [("nowhere", "does not exist"), ("ours", "is the target of the merge")]
)
def test_folders_that_cannot_be_merged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], folder: str, complaint: str
) -> None:
    store(tmp_path / "ours")
    assert merge(tmp_path / "ours", tmp_path / folder) == 2
    assert capsys.readouterr().err == f"error: results folder {tmp_path / folder} {complaint}\n"


def test_a_folder_of_a_newer_schema_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is copied then, not even from another folder."""
    store(tmp_path / "readable")
    store(tmp_path / "theirs", schema=SCHEMA + 1)
    assert merge(tmp_path / "ours", tmp_path / "readable", tmp_path / "theirs") == 2
    assert f"newer than {SCHEMA}" in capsys.readouterr().err
    assert json.loads((tmp_path / "theirs" / RUN / "record.json").read_text())
    assert Store(tmp_path / "ours").run_ids() == []


class TestDamage:
    """What cannot be read costs a line and exit code 1, and the rest is taken."""

    def merged(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> tuple[int, str, list[str]]:
        code = merge(tmp_path / "ours", tmp_path / "theirs")
        said = capsys.readouterr()
        return code, said.out, said.err.splitlines()

    @pytest.mark.parametrize("content", ["{", "[" * 100_000, "null", '{"schema": 1}'])
    def test_a_damaged_record(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
    ) -> None:
        store(tmp_path / "theirs")
        (tmp_path / "theirs" / "bad").mkdir()
        (tmp_path / "theirs" / "bad" / "record.json").write_text(content)
        code, out, (line,) = self.merged(tmp_path, capsys)
        assert (code, out) == (1, "1 copied, 1 damaged\n")
        assert line.startswith(f"warning: {tmp_path / 'theirs' / 'bad' / 'record.json'} is damag")

    def test_a_damaged_record_of_ours_is_kept(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        store(tmp_path / "theirs")
        ours = Store(tmp_path / "ours").open_run(RUN) / "record.json"
        ours.write_text("{")
        code, out, (line,) = self.merged(tmp_path, capsys)
        assert (code, out) == (1, "1 damaged\n")
        assert line.startswith(f"warning: {RUN} is not copied: {ours} is damaged")
        assert ours.read_text() == "{"

    def test_a_damaged_failure_and_a_damaged_matrix(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        theirs = store(tmp_path / "theirs")
        (theirs.open_run("bad") / "failure.json").mkdir()
        (tmp_path / "theirs" / "matrices" / "smoke-0a1b2c3d.json").mkdir(parents=True)
        code, out, lines = self.merged(tmp_path, capsys)
        assert (code, out) == (1, "1 copied, 2 damaged\n")
        assert [line.rpartition(": ")[2] for line in lines] == ["Is a directory"] * 2

    def test_a_run_of_which_a_file_cannot_be_read(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store(tmp_path / "theirs")
        store(tmp_path / "theirs", run_id="other")

        def copy(source: Path, target: Path) -> None:
            if source.parent.name == "other":
                raise PermissionError(13, "Permission denied", str(source))

        monkeypatch.setattr("shutil.copy2", copy)
        code, out, (line,) = self.merged(tmp_path, capsys)
        assert (code, out) == (1, "1 copied, 1 damaged\n")
        assert line.endswith("network.safetensors: Permission denied")
        assert Store(tmp_path / "ours").run_ids() == [RUN]


def test_a_run_whose_folder_was_renamed_is_copied_under_its_own_name(tmp_path: Path) -> None:
    theirs = store(tmp_path / "theirs")
    (theirs.folder / RUN).rename(theirs.folder / "best")
    assert merge(tmp_path / "ours", tmp_path / "theirs") == 0
    assert Store(tmp_path / "ours").run_ids() == [RUN]
    assert (tmp_path / "ours" / RUN / "network.safetensors").read_bytes() == b"weights"


def test_a_folder_of_the_users_in_that_of_a_run_does_not_matter(tmp_path: Path) -> None:
    theirs = store(tmp_path / "theirs")
    (theirs.folder / RUN / "notes").mkdir()
    assert merge(tmp_path / "ours", tmp_path / "theirs") == 0
    assert Store(tmp_path / "ours").run_ids() == [RUN]


def test_a_folder_without_runs_is_refused_before_anything_is_copied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store(tmp_path / "theirs")
    (tmp_path / "package.egg-info").mkdir()
    (tmp_path / "package.egg-info" / "PKG-INFO").touch()
    for wrong in (tmp_path / "package.egg-info", tmp_path / "theirs" / RUN):
        assert merge(tmp_path / "ours", tmp_path / "theirs", wrong) == 2
        assert capsys.readouterr().err == f"error: results folder {wrong} contains no runs\n"
    assert not (tmp_path / "ours").exists()
