"""Published tables next to our numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reports.groups import sections
from reports.published import Reference, concern_the_paper, references
from reports.results import read
from tests.helpers.fabricated import record, save

PAPER: dict[str, Any] = {"spec__profile": "paper", "data__source": "official"}


def compared(folder: Path, *records: dict[str, Any]) -> dict[str, Reference]:
    made = references(sections(read(save(folder, records))))
    return {each.table.slug: each for each in made}


def row(of: Reference, title: str, place: int = 0) -> dict[str, str]:
    rows = [row for block in of.table.blocks for row in block.rows if row[0].text == title]
    return dict(zip(of.table.columns, (cell.text for cell in rows[place]), strict=True))


def test_a_table_of_which_no_row_was_run_is_left_out(tmp_path: Path) -> None:
    own = record("cifar100", "mine", 0.5, **PAPER)
    assert compared(tmp_path, record(), own) == {}


def test_a_row_whose_runs_are_only_missing_was_not_run(tmp_path: Path) -> None:
    ours = record("cifar100", "snip", status="missing", **PAPER)
    assert compared(tmp_path, ours, record("cifar100", "mine", **PAPER)) == {}


@pytest.mark.parametrize(
    ("task", "pruner", "expected"),
    [
        ("shapes", "snip", True),
        ("shapes", "gate_decorators", True),
        ("cifar10", "mine", True),
        ("shapes", "dense", False),
        ("shapes", "mine", False),
        ("digits", "mine", False),
        ("mnist", "mine", False),
    ],
)
def test_results_are_of_the_paper_by_a_method_or_a_task(
    tmp_path: Path, task: str, pruner: str, expected: bool
) -> None:
    titled: dict[str, Any] = {}
    if pruner == "gate_decorators":
        titled = {"pruner__title": "GateDecorators"}
    results = read(save(tmp_path, [record(task, pruner, **titled)]))
    assert concern_the_paper(sections(results)) == expected


def test_our_number_is_next_to_it_with_the_difference(tmp_path: Path) -> None:
    ours = record("cifar100", "earlycrop_u", quality__test=66.5, **PAPER)
    tables = compared(tmp_path, ours)
    found = row(tables["published-classification-cifar100-paper"], "EarlyCroP-U")
    assert found["Test accuracy (%), published"] == "65.1"
    assert found["Test accuracy (%), ours"] == "66.50"
    assert found["Test accuracy (%), difference"] == "+1.40"
    assert found["Node sparsity (%), ours"] == "\N{EN DASH}"
    assert tables["published-classification-cifar100-paper"].comparable


def test_titles_are_matched_whatever_their_case(tmp_path: Path) -> None:
    tables = compared(tmp_path, record("cifar100", "grasp", quality__test=60.0, **PAPER))
    found = row(tables["published-classification-cifar100-paper"], "GRASP")
    assert found["Test accuracy (%), difference"] == "\N{MINUS SIGN}3.40"


def test_with_other_data_the_page_says_that_nothing_is_reproduced(tmp_path: Path) -> None:
    tables = compared(tmp_path, record("cifar100", "snip"))
    published = tables["published-classification-cifar100-embedded"]
    assert not published.comparable
    assert "neither success nor failure" in published.remark


def test_large_models_are_matched_by_their_settings(tmp_path: Path) -> None:
    def run(pruner: str, model: str, epochs: int, test: float) -> Any:
        return record(
            "cifar10",
            pruner,
            0.985,
            quality__test=test,
            spec__overrides={"model": model, "epochs": epochs},
            settings={"model": model, "epochs": epochs},
            run_id=f"{pruner}-{model}-{epochs}",
            **PAPER,
        )

    tables = compared(
        tmp_path,
        run("dense", "resnext101_32x16d", 30, 92.0),
        run("earlycrop_s", "resnext101_32x48d", 80, 93.0),
    )
    (large,) = [each for slug, each in tables.items() if slug.startswith("published-large")]
    accuracy = "Test accuracy (%), ours"
    assert row(large, "RN48")[accuracy] == "\N{EN DASH}"
    assert row(large, "RN16")[accuracy] == "92"
    assert row(large, "RN48-S", 0)[accuracy] == "\N{EN DASH}"
    assert row(large, "RN48-S", 1)[accuracy] == "93"


def test_a_row_without_a_setting_is_of_its_default(tmp_path: Path) -> None:
    def run(pruner: str, sparsity: float, error: float, **changes: Any) -> Any:
        return record(
            "mnist",
            pruner,
            sparsity,
            quality__further={"error": error},
            spec__overrides=changes,
            settings={"model": "lenet_5_caffe", **changes},
            run_id="-".join([pruner, str(sparsity), *changes.values()]),
            **PAPER,
        )

    (table,) = compared(
        tmp_path,
        run("snip", 0.95, 1.5, model="lenet_300_100"),
        run("snip", 0.98, 2.5, model="lenet_300_100"),
        run("snip", 0.98, 1.0),
    ).values()
    ours = [row(table, title)["Test error (%), ours"] for title in SNIP_ROWS]
    assert ours == ["\N{EN DASH}", "1.500", "2.500", "\N{EN DASH}", "1", "\N{EN DASH}"]
    assert row(table, SNIP_ROWS[2])["Test error (%), difference"] == "+0.10"


SNIP_ROWS = (
    "LeNet-300-100",
    "LeNet-300-100, SNIP 95 %",
    "LeNet-300-100, SNIP 98 %",
    "LeNet-5-Caffe",
    "LeNet-5-Caffe, SNIP 98 %",
    "LeNet-5-Caffe, SNIP 99 %",
)
