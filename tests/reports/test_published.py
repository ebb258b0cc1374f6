"""Published tables next to our numbers."""

from __future__ import annotations

import csv
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from reports.groups import sections
from reports.published import PUBLISHED, Reference, concern_the_paper, references
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


BUDGETED = {"spec__overrides": {"floor": 0.1}, "settings": {"floor": 0.1, "model": "resnet18"}}


def budgeted(pruner: str, budget: str, **changes: Any) -> Any:
    return record(
        "cifar100",
        pruner,
        0.0,
        spec__budget=budget,
        run_id=f"cifar100-{pruner}-{budget}",
        **{**BUDGETED, **changes},
    )


def dense(**changes: Any) -> Any:
    return record("cifar100", "dense", run_id="cifar100-dense", **{**BUDGETED, **changes})


LEADERBOARD = "published-pruningbench-cifar100-embedded-floor-0-1"


def test_a_leaderboard_with_budgets_stands_beside_runs_of_these_budgets(tmp_path: Path) -> None:
    tables = compared(
        tmp_path,
        dense(quality__test=70.0, cost__parameters=1000),
        budgeted("random_s", "macs=0.5", quality__test=68.0, cost__parameters=400),
        budgeted("random_s", "macs=0.125", quality__test=60.0),
    )
    leaderboard = tables[LEADERBOARD]
    half, quarter, eighth = (row(leaderboard, "Random", place) for place in range(3))
    assert half["Test accuracy (%), published"] == "74.20"
    assert half["Test accuracy (%), ours"] == "68"
    assert half["Parameters (% of dense), published"] == "49.22"
    assert half["Parameters (% of dense), ours"] == "40"
    assert quarter["Test accuracy (%), ours"] == "\N{EN DASH}"
    assert eighth["Test accuracy (%), difference"] == "\N{MINUS SIGN}9.48"
    assert row(leaderboard, "Dense")["Test accuracy (%), ours"] == "70"
    assert [block.title for block in leaderboard.table.blocks if block.title] == [
        *("macs=0.5", "macs=0.25", "macs=0.125")
    ]
    assert "accuracies cannot" in leaderboard.remark
    assert not leaderboard.comparable


@pytest.mark.parametrize(
    "changes",
    [
        {"spec__overrides": {}, "settings": {"model": "resnet18"}},
        {"spec__overrides": {"floor": 0.1, "model": "vgg16"}},
    ],
)
def test_runs_of_another_network_or_without_protected_groups_are_not_beside_it(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    tables = compared(tmp_path, budgeted("random_s", "macs=0.5", **changes))
    assert not any(slug.startswith("published-pruningbench") for slug in tables)


def test_the_dense_network_alone_is_not_beside_it(tmp_path: Path) -> None:
    other = budgeted("crop_s", "macs=0.5", pruner__title="CroP-S")
    assert LEADERBOARD not in compared(tmp_path, dense(), other)


def test_the_published_speed_ups_are_those_of_the_suite() -> None:
    path = resources.files("harness") / "suites" / "pruningbench.toml"
    suite = tomllib.loads(path.read_text(encoding="utf-8"))
    (tables,) = tomllib.loads((PUBLISHED / "tables.toml").read_text(encoding="utf-8")).values()
    (description,) = (table for table in tables if table["slug"] == "pruningbench")
    content = (PUBLISHED / description["file"]).read_text(encoding="utf-8")
    rows = list(csv.DictReader(content.splitlines()))
    (runs,) = suite["runs"]
    assert list(dict.fromkeys(each["budget"] for each in rows)) == ["", *runs["budgets"]]
    assert {f"{name}={value}" for name, value in runs["set"].items()} == {*description["settings"]}
    assert {*description["methods"].values()} <= {*runs["pruners"]}
    assert {*description["methods"]} <= {each["method"] for each in rows}
    accuracies = {(each["budget"], each["method"]): each["test_acc_pct"] for each in rows}
    assert len(accuracies) == 1 + 3 * 17
    assert all(60 < float(value) < 80 for value in accuracies.values())


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
