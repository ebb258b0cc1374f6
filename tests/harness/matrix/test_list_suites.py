"""``list suites`` shows the number of runs and their estimated duration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.command_line import main
from harness.storage.store import Store
from tests.helpers.records import record

SUITE = """
title = "Mine"
[[runs]]
tasks = ["digits"]
pruners = ["dense", "snip"]
sparsities = [0.9, 0.98]
"""


@pytest.fixture
def suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of suites, one of which names an unknown task."""
    (tmp_path / "mine.toml").write_text(SUITE)
    (tmp_path / "wrong.toml").write_text(SUITE.replace("digits", "digist"))
    monkeypatch.setattr("harness.matrix.suite.FOLDER", tmp_path)
    return tmp_path


def listed(results: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    assert main(["list", "suites", "--json", "--results", str(results)]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_a_wrong_suite_shows_its_error_and_does_not_hide_the_others(
    suites: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, wrong = listed(suites / "results", capsys)
    assert (mine["name"], mine["title"], mine["runs"]) == ("mine", "Mine", 3)
    assert (wrong["name"], wrong["runs"]) == ("wrong", None)
    assert wrong["title"].startswith("unknown task 'digist'; did you mean 'digits'?")


def test_without_results_a_suite_has_no_duration(
    suites: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, _ = listed(suites / "results", capsys)
    why = "duration unknown: no embedded results yet for digits"
    assert (mine["seconds"], mine["why"]) == (None, why)
    assert main(["list", "suites", "--results", str(suites / "results")]) == 0
    output = capsys.readouterr().out
    assert output.splitlines()[1].split() == ["mine", "3", "runs", "-", "Mine"]
    assert output.count("the duration is unknown") == 1


def test_the_duration_of_a_suite_is_estimated_from_results(
    suites: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One dense run took 10 s and other runs of the task 30 s: by the medians, 10 + 20 + 20."""
    store = Store(suites / "results")
    for pruner, seconds in (("dense", 10.0), ("crop_u", 30.0)):
        done = record(run_id=f"{pruner}-run", spec__pruner=pruner, cost__train_seconds=seconds)
        store.open_run(done["run_id"])
        store.save(done)
    mine, _ = listed(store.folder, capsys)
    assert (mine["seconds"], mine["why"]) == (50.0, None)
    assert main(["list", "suites", "--results", str(store.folder)]) == 0
    assert "mine   3 runs  50 s  Mine" in capsys.readouterr().out
