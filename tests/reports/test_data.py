"""Tables and runs as data: JSON and Parquet beside the page."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.command_line import main
from reports.data import Value, rows_of, table_to_json, to_json, to_parquet
from reports.tables import NONE, Block, Cell, Table
from tests.helpers.fabricated import record, save

TABLE = Table(
    "t",
    "Losses",
    ["Method", "x"],
    [
        Block(
            "All",
            [
                [Cell("SNIP"), Cell("\N{MINUS SIGN}1.5", order=-1.5, low=-2.25, high=-0.75)],
                [Cell("GraSP"), Cell(NONE, "not measured")],
                [Cell("CroP"), Cell("collapsed")],
            ],
        )
    ],
    stamp="SYNTHETIC",
    notes=["Lower is better."],
)


def test_a_number_stands_alone_with_its_interval_beside_it() -> None:
    header, rows = rows_of(TABLE)
    assert header == ["Block", "Method", "x", "x: low", "x: high", "x: remark", "Stamp"]
    assert rows == [
        ["All", "SNIP", -1.5, -2.25, -0.75, None, "SYNTHETIC"],
        ["All", "GraSP", None, None, None, "not measured", "SYNTHETIC"],
        ["All", "CroP", "collapsed", None, None, None, "SYNTHETIC"],
    ]


def test_a_table_in_json_says_what_the_page_says_around_it() -> None:
    told = json.loads(table_to_json(TABLE))
    assert (told["title"], told["stamp"], told["notes"]) == (
        "Losses",
        "SYNTHETIC",
        ["Lower is better."],
    )
    assert told["rows"][0]["x: low"] == -2.25
    assert told["rows"][1]["x"] is None


def test_json_has_null_for_what_it_cannot_express() -> None:
    assert json.loads(to_json(["x", "y"], [[math.inf, 10**400]])) == [{"x": None, "y": 10**400}]


MIXED: list[list[Value]] = [[1, "a", True, 0.5], [None, None, 2, "none"], [10**400, "b", None, 2]]


def test_a_parquet_file_has_columns_of_one_type(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pandas as pd

    (tmp_path / "x.parquet").write_bytes(to_parquet(["n", "s", "b", "f"], MIXED))
    frame = pd.read_parquet(tmp_path / "x.parquet")
    assert list(frame) == ["n", "s", "b", "f", "f: text"]
    assert frame["n"].dropna().tolist() == [1]
    assert frame["s"].dropna().tolist() == ["a", "b"]
    assert frame["b"].dropna().tolist() == [1, 2]
    assert frame["f"].dropna().tolist() == [0.5, 2.0]
    assert frame["f: text"].dropna().tolist() == ["none"]


def command(tmp_path: Path, *words: str) -> list[str]:
    """Return a command that writes a report on two runs, of which one diverged."""
    results: list[Any] = [record(seed=0), record(seed=1, status="diverged", reason="NaN")]
    folder = str(save(tmp_path / "results", results))
    return ["report", "--results", folder, "--out", str(tmp_path / "out"), *words]


@pytest.mark.usefixtures("undrawn")
def test_a_report_has_its_data_as_json(tmp_path: Path) -> None:
    assert main(command(tmp_path, "--format", "json")) == 0
    runs = json.loads((tmp_path / "out" / "runs.json").read_text())
    assert [run["status"] for run in runs] == ["done", "diverged"]
    assert isinstance(runs[0]["cost.step_ms"], float)
    assert runs[1]["quality.test"] is None
    tables = tmp_path / "out" / "tables"
    for table in tables.glob("*.csv"):
        assert json.loads(table.with_suffix(".json").read_text())["rows"], table
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.usefixtures("undrawn")
def test_a_report_has_its_data_as_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pandas as pd

    assert main(command(tmp_path, "--format", "parquet")) == 0
    runs = pd.read_parquet(tmp_path / "out" / "runs.parquet").set_index("run_id")
    frame = harness.read_results(tmp_path / "results").set_index("run_id")
    assert runs["cost.step_ms"].tolist() == frame["cost.step_ms"].tolist()
    assert runs["counted"].all()
    tables = tmp_path / "out" / "tables"
    for table in tables.glob("*.csv"):
        assert len(pd.read_parquet(table.with_suffix(".parquet"))) > 0, table


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        ("jason", "unknown format 'jason' of a report; did you mean 'json'?"),
        ("json,parquet", "the format 'parquet' of a report: pyarrow is not installed; pip install"),
    ],
)
def test_a_format_that_is_not_there_is_refused_before_anything_is_written(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    wanted: str,
    complaint: str,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(command(tmp_path, "--format", wanted)) == 2
    assert capsys.readouterr().err.startswith(f"error: {complaint}")
    assert not (tmp_path / "out").exists()
