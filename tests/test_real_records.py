"""Records that an engine wrote, as everything reads them that reads records."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.command_line import main
from harness.record import KEYS_OF_VERBS, Cost, Provenance, decode, encode, fields
from harness.results.frame import columns, read_results
from harness.storage.store import Store

DATA = Path(__file__).parent / "data"
FOLDERS = ("results", "results_engine_1")
FILES = sorted(path for folder in FOLDERS for path in (DATA / folder).glob("*/*.json"))

Say = Callable[..., str]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Carry out a command that succeeds without a warning, and return what it prints."""

    def said(*words: object) -> str:
        capsys.readouterr()
        assert main([str(word) for word in words]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out

    return said


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with two smoke runs of this engine."""
    results = tmp_path_factory.mktemp("fresh")
    for pruner in ("dense", "crop_s"):
        words = ["run", "--task", "digits", "--pruner", pruner, "--profile", "smoke"]
        assert main([*words, "--results", str(results)]) == 0
    return results


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parts[-3]}-{file.parts[-2]}")
def test_a_record_is_read_and_written_without_a_change(file: Path) -> None:
    content = file.read_bytes()
    assert encode(decode(content)) == content


def test_the_records_are_of_all_kinds() -> None:
    records = [decode(file.read_bytes()) for file in FILES]
    assert {record["status"] for record in records} == {"done", "collapsed", "diverged", "failed"}
    assert {record.get("engine") for record in records} == {None, 2}
    assert any(record["provenance"].get("resumed") for record in records)
    assert any(record.get("start") for record in records)
    assert {len(record["cost"].get("by_length", {})) for record in records} == {0, 4}
    verbs = {event["verb"] for record in records for event in record["events"]}
    assert verbs == {*KEYS_OF_VERBS, "snapshot"}


def test_what_the_engine_writes_has_the_keys_of_the_type_in_its_order(fresh: Path) -> None:
    for record in Store(fresh).records():
        # The first two are not in the smoke profile; images are no sequences; a run does not
        # write the last.
        optional = {"energy_scope", "carbon_intensity_g_per_kwh", "by_length", "measured_on"}
        for part, kind in ((record["cost"], Cost), (record["provenance"], Provenance)):
            known = [key for key in fields(kind) if key not in optional]
            assert sorted(part) == sorted(known)


def test_fresh_records_go_through_every_command(fresh: Path, tmp_path: Path, say: Say) -> None:
    dense, pruned = sorted(Store(fresh).run_ids(), reverse=True)
    assert "accuracy" in say("show", dense, "--results", fresh)
    assert json.loads(say("show", dense, "--json", "--results", fresh))["run_id"] == dense
    assert say("status", "--results", fresh) == "2 runs outside any matrix: 2 done\n"
    compared = json.loads(say("compare", dense, pruned, "--json", "--results", fresh))
    assert compared["costs"]["parameters"]["ratio"] < 1
    assert compared["not_compared"] == []
    assert say("merge", fresh, "--results", tmp_path / "merged") == "2 copied\n"
    assert "equal" in say("compare", fresh, tmp_path / "merged")
    page = Path(say("report", "--results", fresh, "--out", tmp_path / "report").strip())
    assert "2 runs" in re.sub(r"\s+", " ", page.read_text(encoding="utf-8"))
    assert 'href="#left-out"' not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", FOLDERS)
def test_older_records_go_through_every_command(folder: str, tmp_path: Path, say: Say) -> None:
    results = tmp_path / "results"
    shutil.copytree(DATA / folder, results)
    runs = Store(results).run_ids()
    for run in runs:
        assert run in say("show", run, "--results", results)
        assert run in say("compare", run, runs[0], "--results", results)
    assert f"{len(runs)}" in say("merge", results, "--results", tmp_path / "merged")
    assert "done" in say("status", "--results", results)
    page = Path(say("report", "--results", results, "--out", tmp_path / "report").strip())
    assert "is damaged" not in page.read_text(encoding="utf-8")


def test_a_frame_has_a_row_for_each_run_and_documented_columns() -> None:
    frame = read_results(DATA / "results")
    assert len(frame) == len(list((DATA / "results").iterdir()))
    assert list(frame.columns[: len(columns())]) == [column.place for column in columns()]
    assert all(column.field.meaning for column in columns())
    by_run = frame.set_index("run_id")
    assert set(frame["status"]) == {"done", "collapsed", "diverged", "failed"}
    pruned = by_run[by_run["spec.pruner"] == "crop_s"].iloc[0]
    assert pruned["sparsity.weights"] == pytest.approx(0.98, abs=0.01)
    assert frame["cost.step_ms"].dtype == float
    assert frame["spec.seed"].dtype == int
    assert by_run["cost.step_ms"].isna().sum() == 1
    assert len(read_results(DATA / "results", failed=False)) == len(frame) - 1
    assert frame["quality.further.cross_entropy"].notna().any()
