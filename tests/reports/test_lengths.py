"""The time of inference over the length of sequences, in tables, figures and the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reports import report
from reports.charts import chart_data, methods
from reports.drawing import in_style
from reports.figures import FIGURES
from reports.groups import Section, sections
from reports.lengths import lengths_table, over_lengths
from reports.results import Results, read
from reports.tables import NONE, Table
from tests.helpers.fabricated import record, save


def words(pruner: str, seed: int, times: Mapping[int, float], **changes: Any) -> Any:
    """Return the record of a network that takes so many milliseconds by length."""
    by_length = {str(length): {"inference_ms": time} for length, time in times.items()}
    return record("words", pruner, 0.98, seed, cost__by_length=by_length, **changes)


def section_of(folder: Path, *records: Any) -> tuple[Section, Results]:
    results = read(save(folder, records))
    (section,) = sections(results)
    return section, results


def table_of(folder: Path, *records: Any) -> Table:
    section, results = section_of(folder, *records)
    return lengths_table(section, over_lengths(section, results))


def cells(table: Table) -> dict[str, list[str]]:
    """Return the texts of each row, by its name."""
    return {
        name.text: [cell.text for cell in row]
        for block in table.blocks
        for name, *row in block.rows
    }


TWICE_AS_FAST = (
    words("dense", 0, {10: 2.0, 20: 8.0}),
    words("dense", 1, {10: 4.0, 20: 8.0}),
    words("snap", 0, {10: 1.0, 20: 2.0}),
    words("snap", 1, {10: 2.0, 20: 2.0}),
)
"""Half of the time of dense at length 10, and a quarter at length 20."""


def test_times_are_means_over_seeds_and_ratios_are_paired_by_seed(tmp_path: Path) -> None:
    table = table_of(tmp_path, *TWICE_AS_FAST)
    assert table.columns == [
        "Method",
        *("Length 10 (ms)", "Length 10, to dense", "Length 20 (ms)", "Length 20, to dense"),
    ]
    assert cells(table) == {
        "Dense": ["3", NONE, "8", NONE],
        "SNAP": ["1.500", "0.5000", "2", "0.2500"],
    }
    assert table.stamp is not None


def test_lengths_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    section, results = section_of(tmp_path, words("dense", 0, {100: 3.0, 20: 2.0, 3: 1.0}))
    found = over_lengths(section, results)
    columns = lengths_table(section, found).columns
    assert columns[1::2] == ["Length 3 (ms)", "Length 20 (ms)", "Length 100 (ms)"]
    assert [list(each.times) for each in found.values()] == [[3, 20, 100]]


def test_without_dense_there_are_times_and_no_ratios(tmp_path: Path) -> None:
    table = table_of(tmp_path, words("snap", 0, {10: 1.0}))
    assert cells(table) == {"SNAP": ["1", NONE]}


def test_a_disturbed_time_is_marked_and_so_is_every_ratio_to_a_disturbed_dense_time(
    tmp_path: Path,
) -> None:
    disturbed = {"cost__disturbed": {"by_length": 0.3}}
    table = table_of(
        tmp_path, words("dense", 0, {10: 2.0}, **disturbed), words("snap", 0, {10: 1.0})
    )
    assert cells(table) == {"Dense": ["2*", NONE], "SNAP": ["1", "0.5000*"]}
    assert "Times marked * were disturbed by other programs on the machine." in table.notes


def test_times_of_another_machine_are_not_pooled(tmp_path: Path) -> None:
    table = table_of(
        tmp_path,
        words("dense", 0, {10: 2.0}),
        words("dense", 1, {10: 4.0}),
        words("snap", 0, {10: 1.0}, provenance__device="Abacus 2"),
    )
    assert cells(table) == {"Dense": ["3", NONE], "SNAP": [NONE, NONE]}
    assert "measured on another machine: Abacus 2" in table.blocks[1].rows[0][1].note


def test_a_group_that_was_not_measured_says_why(tmp_path: Path) -> None:
    late = record("words", "snap", 0.98, 0, cost__reasons={"inference_ms": "left to later"})
    table = table_of(tmp_path, words("dense", 0, {10: 2.0}), late)
    assert [cell.note for cell in table.blocks[1].rows[0][1:]] == ["left to later"] * 2


def test_tasks_without_sequences_have_no_table_and_no_figure(tmp_path: Path) -> None:
    section, results = section_of(tmp_path, record("words", "dense"), record("words", "snap"))
    assert over_lengths(section, results) == {}
    chart = chart_data(section, results, over_lengths(section, results))
    assert chart["lengths"] == [None, None]
    looks = {method["id"]: method for method in methods([section])}
    assert FIGURES["lengths"](section, chart, looks) is None


def test_the_figure_has_a_panel_for_times_and_one_for_ratios(tmp_path: Path) -> None:
    section, results = section_of(tmp_path, *TWICE_AS_FAST)
    looks = {method["id"]: method for method in methods([section])}
    with in_style():
        figure = FIGURES["lengths"](
            section, chart_data(section, results, over_lengths(section, results)), looks
        )
    assert figure is not None
    times, ratios = (
        [np.asarray(line.get_ydata()).tolist() for line in axes.lines] for axes in figure.axes
    )
    assert times == [[3.0, 8.0], [1.5, 2.0]]
    assert ratios == [[1.0, 1.0], [0.5, 0.25]]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["10", "20"]


def test_the_figure_says_that_times_were_disturbed(tmp_path: Path) -> None:
    noisy = words("snap", 0, {10: 1.0}, cost__disturbed={"by_length": 0.3})
    section, results = section_of(tmp_path, words("dense", 0, {10: 2.0}), noisy)
    looks = {method["id"]: method for method in methods([section])}
    with in_style():
        figure = FIGURES["lengths"](
            section, chart_data(section, results, over_lengths(section, results)), looks
        )
    assert figure is not None
    assert "other programs disturbed some times" in figure.axes[0].get_xlabel()


@pytest.mark.usefixtures("undrawn")
def test_the_lengths_are_on_the_page_and_in_the_data_beside_it(tmp_path: Path) -> None:
    page = report.write(save(tmp_path / "results", TWICE_AS_FAST), tmp_path / "out", "", ["json"])
    text = page.read_text(encoding="utf-8")
    assert 'data-chart="lengths"' in text
    (file,) = (tmp_path / "out" / "tables").glob("*-lengths.json")
    rows = {row["Method"]: row for row in json.loads(file.read_text())["rows"]}
    assert rows["SNAP"]["Length 20, to dense"] == pytest.approx(0.25)
    runs = json.loads((tmp_path / "out" / "runs.json").read_text())
    assert {run["cost.by_length.20.inference_ms"] for run in runs} == {8.0, 2.0}
