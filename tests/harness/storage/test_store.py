"""The results folder: a run is done when its record exists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from filelock import FileLock

import harness
from harness.errors import RequestError
from harness.record import SCHEMA
from harness.storage.store import RECORD as FILE_NAME
from harness.storage.store import Store
from tests.helpers.records import RECORD, record

RUN = RECORD["run_id"]
OTHER = "ptb-snip-0.9-seed0-ba9876543210"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A results folder with two runs that are done."""
    store = Store(tmp_path / "results")
    for run_id in (RUN, OTHER):
        store.open_run(run_id)
        store.save(record(run_id=run_id))
    return store


def refused(store: Store, name: str) -> str:
    with pytest.raises(RequestError) as refusal:
        store.find(name)
    (line,) = str(refusal.value).splitlines()
    return line


def test_what_is_saved_is_found(store: Store) -> None:
    assert store.record(RUN) == RECORD
    assert store.run_ids() == [RUN, OTHER]
    assert [found["run_id"] for found in store.records()] == [RUN, OTHER]


def test_a_run_without_a_record_is_not_done(store: Store) -> None:
    store.open_run("begun")
    assert store.record("begun") is None
    assert store.run_ids() == [RUN, OTHER]


def test_a_folder_is_made_when_the_first_run_needs_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "not" / "there")
    assert store.run_ids() == []
    assert store.record(RUN) is None
    assert not store.folder.exists()
    assert store.open_run(RUN).is_dir()


@pytest.mark.parametrize("name", [RUN, "digits", "digits-earlycrop_u-0.98", "0123456789ab"])
def test_a_run_is_found_by_its_name_its_beginning_or_its_hash(store: Store, name: str) -> None:
    assert store.find(name)["run_id"] == RUN


def test_a_whole_name_is_not_the_beginning_of_another(store: Store) -> None:
    store.open_run("digits")
    store.save(record(run_id="digits"))
    assert store.find("digits")["run_id"] == "digits"


def test_a_run_is_found_by_its_folder_wherever_it_lies(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = Store(tmp_path / "elsewhere")
    assert elsewhere.find(str(store.folder / RUN))["run_id"] == RUN
    monkeypatch.chdir(store.folder)
    assert elsewhere.find(RUN)["run_id"] == RUN


def test_a_name_that_fits_several_runs_is_refused(store: Store) -> None:
    assert refused(store, "") == f"'' is ambiguous: {RUN}, {OTHER}"


def test_an_unknown_name_is_answered_with_the_nearest(store: Store) -> None:
    line = refused(store, "ptb-snipit-0.9-seed0-ba9876543210")
    assert line.endswith(f"'ptb-snipit-0.9-seed0-ba9876543210'; did you mean '{OTHER}'?")


def test_not_all_of_a_hundred_runs_are_named(store: Store) -> None:
    for seed in range(100):
        store.open_run(f"many-seed{seed:02}")
        store.save(record(run_id=f"many-seed{seed:02}"))
    assert refused(store, "many").endswith("many-seed38, many-seed39 and 60 more")


def test_a_run_that_is_not_done_is_called_that(store: Store) -> None:
    store.open_run("begun")
    assert refused(store, "begun").startswith("begun is not done")


def test_a_run_that_failed_says_why_and_where_there_is_more(store: Store) -> None:
    run_id = "points-mine-0.9-seed0-ba9876543211"
    store.open_run(run_id)
    reason = "mine.py, line 3: ValueError: boom (more in failure.txt)"
    failure = record(run_id=run_id, status="failed", reason=reason)
    store.save_failure(failure, "Traceback")
    path = store.folder / run_id / "failure.txt"
    said = f"{run_id} failed: mine.py, line 3: ValueError: boom (more in {path})"
    for name in (run_id, "points", "ba9876543211", str(store.folder / run_id)):
        assert refused(store, name) == said
    with pytest.raises(RequestError) as refusal:
        harness.load(store.folder / run_id)
    assert str(refusal.value) == said


def test_a_run_that_was_interrupted_says_so(store: Store) -> None:
    (store.open_run("begun") / "journal.jsonl").touch()
    said = "begun is not done: it was interrupted; the same command resumes it"
    assert refused(store, "begun") == said
    with FileLock(store.folder / "begun" / "lock"):
        assert refused(store, "begun") == "begun is not done: it is running"


def test_a_failure_that_cannot_be_read_is_told(store: Store) -> None:
    (store.open_run("begun") / "failure.json").mkdir()
    (store.folder / "begun" / "failure.txt").mkdir()
    path = store.folder / "begun" / "failure.json"
    assert refused(store, "begun") == f"begun failed; {path} cannot be read: Is a directory"
    assert store.failure_details("begun") == "failure.txt cannot be read: Is a directory"


def test_one_damaged_record_costs_the_others_nothing(store: Store) -> None:
    path = store.folder / RUN / FILE_NAME
    path.write_text("null")
    told: list[str] = []
    assert [found["run_id"] for found in store.records(told.append)] == [OTHER]
    assert told == [f"{path} is damaged; remove it to run again"]


def test_an_empty_folder_is_called_that(tmp_path: Path) -> None:
    assert (
        refused(Store(tmp_path), "x") == f"results folder {tmp_path} contains no run that is done"
    )


def test_a_file_is_no_results_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(RequestError, match="is a file, not a folder"):
        Store(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b"{}", b'{"schema": null}', b'{"schema": "new"}', b"\xff"]
)
def test_a_damaged_record_is_refused_and_kept(store: Store, content: bytes) -> None:
    path = store.folder / RUN / FILE_NAME
    path.write_bytes(content)
    assert refused(store, RUN) == f"{path} is damaged; remove it to run again"
    assert path.read_bytes() == content


def test_a_record_of_a_newer_schema_is_refused(store: Store) -> None:
    newer = {**RECORD, "schema": SCHEMA + 1}
    (store.folder / RUN / FILE_NAME).write_text(json.dumps(newer))
    line = refused(store, RUN)
    assert f"has schema {SCHEMA + 1}, newer than {SCHEMA}" in line
    assert "use the version of the project that wrote it" in line


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_record_has_no_numbers_that_are_not_json(tmp_path: Path, value: float) -> None:
    store = Store(tmp_path)
    store.open_run(RUN)
    broken = record(quality__test=value)
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.save(broken)
    assert store.record(RUN) is None


@pytest.mark.parametrize(("word", "value"), [("on", True), ("off", False)])
def test_switches_of_older_records_become_true_and_false(
    tmp_path: Path, word: str, value: bool
) -> None:
    store = Store(tmp_path)
    old = record(spec__overrides={"kernel": word}, settings__kernel=word)
    store.open_run(old["run_id"])
    store.save(old)
    read = store.record(old["run_id"])
    assert read is not None
    assert read["settings"]["kernel"] is value
    assert read["spec"]["overrides"] == {"kernel": value}
