"""The table of `benchmarks.paired`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import paired
from tests.helpers.fabricated import record, save


def shown(
    folder: Path,
    records: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, list[str]]:
    """Return the cells of each method: seeds, mean, difference, interval, then the costs."""
    save(folder, records)
    words = ["--task", "pictures", "--sparsity", "0.98", "--results", str(folder)]
    monkeypatch.setattr("sys.argv", ["paired", *words])
    paired.main()
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]
    return {name: cells for name, *cells in rows}


STEP, FILE = 6, 9


def test_step_times_of_different_machines_have_no_ratio(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [record(pruner="dense", seed=s, cost__step_ms=100.0) for s in range(3)]
    records += [
        record(seed=s, cost__step_ms=1000.0, cost__disk_bytes=100, provenance__device="Slow")
        for s in range(3)
    ]
    cells = shown(tmp_path, records, capsys, monkeypatch)["snip"]
    assert cells[STEP] == "-"
    assert cells[FILE] != "-"


def test_a_cost_that_is_not_known_is_a_dash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [record(pruner="dense", seed=s, cost__step_ms=20.0) for s in range(2)]
    records += [record(seed=0, cost__step_ms=None), record(seed=1, cost__step_ms=10.0)]
    records += [record(pruner="grasp", seed=s, cost__step_ms=None) for s in range(2)]
    rows = shown(tmp_path, records, capsys, monkeypatch)
    assert (rows["snip"][STEP], rows["grasp"][STEP]) == ("0.500", "-")


def test_runs_that_diverged_are_counted_and_have_no_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [record(pruner="dense", seed=s, cost__step_ms=20.0) for s in range(2)]
    records += [record(seed=0, cost__step_ms=10.0)]
    records += [record(seed=1, status="diverged", cost__step_ms=0.1)]
    cells = shown(tmp_path, records, capsys, monkeypatch)["snip"]
    assert (cells[0], cells[STEP]) == ("1 of 2", "0.500")


def test_a_dense_network_that_diverged_is_no_reference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [record(pruner="dense", status="diverged"), record()]
    rows = shown(tmp_path, records, capsys, monkeypatch)
    assert rows["dense"][:2] == ["0", "-"]
    assert rows["snip"][0] == "0 of 1"
