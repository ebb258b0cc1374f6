"""The tables and figures of the documents are those that the published runs make."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.measurement import Comparison as Measured
from benchmarks.publish import __main__ as command
from benchmarks.publish import documents, runs, tables
from benchmarks.publish.documents import FIGURES, PROJECT, SUITES, TABLES, Figure
from benchmarks.publish.tables import (
    Claims,
    Comparison,
    MomentCurves,
    MomentsOfTriggers,
    Readings,
    Speed,
)
from benchmarks.speed import __main__ as speed
from benchmarks.speed.__main__ import publish
from harness.errors import RequestError
from harness.results.provenance import environment
from reports.groups import sections
from reports.results import read
from tests.helpers.fabricated import record, save, suite

AGAIN = "python -m benchmarks.publish makes it"


@pytest.mark.parametrize("page", documents.pages(), ids=lambda page: str(page.relative_to(PROJECT)))
def test_a_page_has_the_tables_that_the_published_runs_make(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == documents.filled(page), AGAIN


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_drawn_from_the_published_runs(name: str) -> None:
    figure = FIGURES[name]
    if figure.drawing() is None:
        assert not (PROJECT / figure.file).exists()
    else:
        assert figure.drawn_from() == figure.runs_sha256(), AGAIN


def test_every_table_and_figure_is_shown() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in documents.pages())
    assert {found["name"] for found in documents.BLOCK.finditer(text)} == {*TABLES, *FIGURES}


@pytest.mark.parametrize("name", SUITES)
def test_published_runs_belong_to_the_suite(name: str) -> None:
    planned = {asked(run) for run, _ in runs.planned(name)}
    assert {asked(run) for run in runs.published(name) if run.recorded} <= planned, AGAIN


def asked(run: Any) -> str:
    overrides = sorted(run.overrides.items())
    return f"{run.task} {run.pruner} {run.sparsity} {run.budget} {run.seed} {overrides}"


def test_the_example_shows_published_runs() -> None:
    page = (PROJECT / "reports" / "example" / "index.html").read_text(encoding="utf-8")
    shown = set(re.findall(r'"([\w.-]+-seed\d+-[0-9a-f]{12})"', page))
    assert shown
    assert shown <= {run.run_id for suite in SUITES for run in runs.published(suite)}


SUITE = """
title = "Mine"
[[runs]]
tasks = ["digits"]
pruners = ["dense", "snip"]
sparsities = [0.98]
seeds = [0, 1]
"""


class TestPublishing:
    @pytest.fixture(autouse=True)
    def suites(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two suites: mine, and another with the same dense runs; nothing has been published."""
        (tmp_path / "suites").mkdir()
        (tmp_path / "suites" / "mine.toml").write_text(SUITE)
        (tmp_path / "suites" / "other.toml").write_text(SUITE.replace("snip", "crop_s"))
        (tmp_path / "published").mkdir()
        monkeypatch.setattr("harness.matrix.suite.FOLDER", tmp_path / "suites")
        monkeypatch.setattr(runs, "FOLDER", tmp_path / "published")
        runs.published.cache_clear()

    def done(self, name: str, seeds: Sequence[int] = (0, 1), **changes: Any) -> list[Any]:
        """Return the records of a suite's runs."""
        sha256 = "ab" * 32
        return [
            record(
                run.task,
                run.pruner,
                run.sparsity,
                run.seed,
                run_id=replace(plan, data=replace(runs.UNKNOWN, sha256=sha256)).run_id,
                **changes,
            )
            for run, plan in runs.planned(name)
            if run.seed in seeds
        ]

    def test_what_is_published_is_what_a_report_reads(self, tmp_path: Path) -> None:
        results = read(save(tmp_path / "results", self.done("mine")))
        assert runs.update(["mine"], results) == {"mine": 4}
        (ours,), (theirs,) = runs.sections_of(["mine"]), sections(results)
        for group, other in zip(ours.groups, theirs.groups, strict=True):
            assert (group.method, group.run_ids) == (other.method, other.run_ids)
            assert group.values["test"] == pytest.approx(other.values["test"])
            assert group.values["step_ms"] == pytest.approx(other.values["step_ms"])
            assert group.members[0].machine == other.members[0].machine

    def test_runs_that_are_not_there_are_published_as_missing(self, tmp_path: Path) -> None:
        runs.update(["mine"], read(save(tmp_path / "results", self.done("mine", seeds=[0]))))
        statuses = {(run.pruner, run.seed): run.status for run in runs.published("mine")}
        assert statuses == {
            **{(pruner, 0): "done" for pruner in ("dense", "snip")},
            **{(pruner, 1): "missing" for pruner in ("dense", "snip")},
        }

    def test_a_later_folder_adds_to_what_is_published(self, tmp_path: Path) -> None:
        for seed in (0, 1):
            folder = tmp_path / f"results{seed}"
            runs.update(["mine"], read(save(folder, self.done("mine", seeds=[seed]))))
        assert [run.status for run in runs.published("mine")] == ["done"] * 4

    def test_a_disturbed_measurement_replaces_none_that_was_not(self, tmp_path: Path) -> None:
        measured: list[dict[str, Any]] = [
            {"cost__step_ms": 5.0},
            {"cost__step_ms": 9.0, "cost__disturbed": {"step_ms": 0.5}},
            {"cost__step_ms": 6.0},
        ]
        for number, changes in enumerate(measured):
            results = read(save(tmp_path / f"results{number}", self.done("mine", **changes)))
            runs.update(["mine"], results)
            shown = {run.quantities["step_ms"] for run in runs.published("mine")}
            assert shown == ({6.0} if number == 2 else {5.0})

    def test_a_run_of_another_version_is_not_published(self, tmp_path: Path) -> None:
        records = [{**each, "run_id": f"{each['run_id'][:-1]}x"} for each in self.done("mine")]
        assert runs.update(["mine"], read(save(tmp_path / "results", records))) == {}
        assert not runs.published("mine")

    def test_a_folder_that_was_made_for_another_suite_is_left_alone(self, tmp_path: Path) -> None:
        results = read(save(tmp_path / "results", self.done("other")))
        assert runs.held("mine", results)  # its dense runs
        assert runs.update(["mine", "other"], results) == {"other": 4}

    def test_readings_of_triggers_are_published(self, tmp_path: Path) -> None:
        records = self.done("mine")
        for number, epoch in enumerate(records[0]["events"][0]["epochs"]):
            epoch["observed"] = {"lazy_regime": None if number == 2 else number / 8}
        runs.update(["mine"], read(save(tmp_path / "results", records)))
        (observed,) = [run for run in runs.published("mine") if run.readings]
        assert list(observed.readings["lazy_regime"].items())[:4] == [
            (1, 0),
            (2, 0.125),
            (3, None),
            (4, 0.375),
        ]


def on(processor: str) -> dict[str, Any]:
    """Return the environment of a test on some processor."""
    return environment(torch.device("cpu")) | {"device": processor}


def test_figures_of_speed_replace_those_of_the_same_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "FOLDER", tmp_path)
    monkeypatch.setattr(speed, "environment", lambda device: on("Processor 9"))
    publish("trace", [Measured("trace", 1.0, 4.0, "s", None)])
    publish("overhead", [Measured("loop", 3.0, 2.0, "s", 1.25)])
    publish("trace", [Measured("trace", 3.0, 4.0, "s", 1)])
    table, _, measured = Speed().markdown().strip().rpartition("\n\n")
    assert rows(table) == {
        "ours / theirs": ["ours", "theirs", "ratio", "limit"],
        "---": ["---"] * 4,
        "loop": ["3 s", "2 s", "1.500 (falls short)", "1.25"],
        "trace": ["3 s", "4 s", "0.750", "1"],
    }
    assert re.fullmatch(r"Measured on Processor 9, \d+ threads?, torch [\d.]+\.", measured)


def test_sparse_kernels_have_a_table_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "FOLDER", tmp_path)
    publish("trace", [Measured("trace", 1.0, 4.0, "s", None)])
    assert Speed(of_sparse_kernels=True).markdown() == ""
    publish("sparse", [Measured("LeNet", 1.0, 2.0, "ms", None)])
    assert "LeNet" in rows(Speed(of_sparse_kernels=True).markdown())
    assert "LeNet" not in rows(Speed().markdown())


def test_figures_of_speed_say_which_machine_measured_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "FOLDER", tmp_path)
    for name, processor in (("trace", "Processor 9"), ("overhead", "Processor 10")):
        monkeypatch.setattr(speed, "environment", lambda device, name=processor: on(name))
        publish(name, [Measured(name, 1.0, 4.0, "s", None)])
    measured = Speed().markdown().splitlines()[-1]
    assert re.fullmatch(r"Measured on Processor 10.*: `overhead`\. .* 9.*: `trace`\.", measured)


class TestPages:
    @pytest.fixture
    def page(self, tmp_path: Path) -> Path:
        return tmp_path / "page.md"

    def test_a_block_is_filled_and_the_rest_stays(
        self, page: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(documents, "TABLES", {"numbers": Numbers()})
        page.write_text(
            "Above\n\n<!-- results: numbers -->\nold\n<!-- end of results -->\n\nBelow\n"
        )
        assert documents.filled(page) == (
            "Above\n\n<!-- results: numbers -->\n\n| 1 |\n\n<!-- end of results -->\n\nBelow\n"
        )

    def test_an_unknown_name_is_refused_with_the_nearest(self, page: Path) -> None:
        page.write_text("<!-- results: reading -->\n<!-- end of results -->\n")
        with pytest.raises(
            RequestError, match="unknown results 'reading'; did you mean 'readings'"
        ):
            documents.filled(page)

    def test_a_block_without_an_end_is_refused(self, page: Path) -> None:
        page.write_text("<!-- results: readings -->\n")
        with pytest.raises(RequestError, match="has no end"):
            documents.filled(page)

    def test_a_folder_without_results_is_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert command.main(["--results", str(tmp_path / "nowhere")]) == 2
        assert capsys.readouterr().err == (
            f"error: results folder {tmp_path / 'nowhere'} does not exist\n"
        )


class Numbers:
    def markdown(self) -> str:
        return "| 1 |\n"


def shown(folder: Path, records: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tables show these records, whatever their suite."""
    found = sections(read(save(folder, records)))
    monkeypatch.setattr(tables, "sections_of", lambda suites: found)


def rows(markdown: str) -> dict[str, list[str]]:
    """Return the cells of each row of a table, by the row's name."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    split = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in lines)
    return {name.strip("`"): cells for name, *cells in split}


COMPARED = Comparison("", "pictures", (0.98, 0.9), ("step_ms", "disk_bytes"))
AT_98, STEP, FILE = 1, 2, 3


class TestComparison:
    def test_a_difference_is_paired_by_seed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Differences 1, 2 and 3: mean 2, standard error 1 / sqrt(3), t of 2 degrees 4.303.
        records = [record(pruner="dense", seed=s, quality__test=90.0 + s) for s in range(3)]
        records += [record(seed=s, quality__test=91.0 + 2 * s) for s in range(3)]
        shown(tmp_path, records, monkeypatch)
        cells = rows(COMPARED.markdown())["snip"]
        assert cells[: AT_98 + 1] == ["before", "+2.00 (-0.48 to +4.48)"]

    def test_a_target_without_results_has_no_column(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        records = [record(pruner="dense"), record(), record(sparsity=0.9, status="failed")]
        shown(tmp_path, records, monkeypatch)
        assert rows(COMPARED.markdown())[""][:2] == ["prunes", "98 % removed"]

    def test_the_best_comes_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tests = {"dense": 95.0, "snip": 90.0, "grasp": 92.0, "crop_u": 91.0}
        shown(tmp_path, [record(pruner=p, quality__test=t) for p, t in tests.items()], monkeypatch)
        assert list(rows(COMPARED.markdown()))[2:] == ["grasp", "crop_u", "snip"]

    def test_step_times_of_different_machines_have_no_ratio(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        records = [record(pruner="dense", seed=s, cost__step_ms=100.0) for s in range(3)]
        records += [
            record(seed=s, cost__step_ms=1000.0, cost__disk_bytes=100, provenance__device="Slow")
            for s in range(3)
        ]
        records += [record(pruner="grasp", seed=s, cost__step_ms=50.0) for s in range(3)]
        shown(tmp_path, records, monkeypatch)
        found = rows(COMPARED.markdown())
        assert (found["snip"][STEP], found["grasp"][STEP]) == ("-", "0.500")
        assert found["snip"][FILE] != "-"

    def test_a_cost_that_no_method_has_gets_no_column(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        records = [record(pruner=name, cost__step_ms=None) for name in ("dense", "snip")]
        shown(tmp_path, records, monkeypatch)
        assert rows(COMPARED.markdown())[""] == ["prunes", "98 % removed", "size on disk"]

    def test_a_cost_that_is_not_known_is_a_dash(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        records = [record(pruner="dense", seed=s, cost__step_ms=20.0) for s in range(2)]
        records += [record(seed=0, cost__step_ms=None), record(seed=1, cost__step_ms=10.0)]
        records += [record(pruner="grasp", seed=s, cost__step_ms=None) for s in range(2)]
        shown(tmp_path, records, monkeypatch)
        found = rows(COMPARED.markdown())
        assert (found["snip"][STEP], found["grasp"][STEP]) == ("0.500", "-")

    def test_runs_that_diverged_are_counted_and_have_no_costs(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        records = [record(pruner="dense", seed=s, cost__step_ms=20.0) for s in range(2)]
        records += [record(seed=0, cost__step_ms=10.0)]
        records += [record(seed=1, status="diverged", cost__step_ms=0.1)]
        shown(tmp_path, records, monkeypatch)
        cells = rows(COMPARED.markdown())["snip"]
        assert cells[AT_98].endswith(", 1 of 2 seeds, 1 diverged")
        assert cells[STEP] == "0.500"

    def test_what_was_not_run_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        records = [record(pruner="dense"), record(), record(pruner="grasp", status="skipped")]
        shown(tmp_path, records, monkeypatch)
        assert COMPARED.markdown().endswith("Not possible with this network: `grasp`.\n")

    def test_a_dense_network_that_diverged_is_no_reference(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shown(tmp_path, [record(pruner="dense", status="diverged"), record()], monkeypatch)
        assert COMPARED.markdown() == ""


def test_a_claim_is_shown_with_the_comparison_that_decides_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = {"dense": 0.0, "crop_u": 9.0, "snip": 5.0, "grasp": 1.0}
    records = [
        record(
            pruner=pruner, seed=seed, quality__test=95 - loss + 0.1 * seed * (pruner == "crop_u")
        )
        for pruner, loss in losses.items()
        for seed in range(3)
    ]
    shown(tmp_path, records, monkeypatch)
    verdict, because, decisive = rows(Claims(()).markdown())["CroP beats SNIP and GraSP."]
    assert (verdict, because) == ("**contradicted**", "2 contradicted of 2 comparisons")
    assert decisive.startswith("CroP-U against GraSP: \N{MINUS SIGN}9.29 %")


def test_verdicts_name_the_data_on_which_networks_were_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruned, only_dense = [record(pruner="dense"), record()], record("words", "dense")
    shown(tmp_path, [*pruned, only_dense], monkeypatch)
    data = Claims(()).markdown().splitlines()[-1]
    assert data.startswith("Data: ")
    assert pruned[0]["task"]["title"] in data
    assert only_dense["task"]["title"] not in data


def test_the_dense_network_stands_beside_a_linear_classifier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "FOLDER", tmp_path / "published")
    (tmp_path / "published").mkdir()
    accuracies = {"constant": "10", "linear": "19.64"}
    runs.write_rows("difficulty", [{"task": task, **accuracies} for task in ("pictures", "words")])
    shown(tmp_path, [record(pruner="dense", quality__test=90.0)], monkeypatch)
    found = rows(tables.Difficulty("").markdown())
    assert found["pictures"] == ["10.0", "19.6", "90.0"]
    assert found["words"] == ["10.0", "19.6", "-"]


def test_without_runs_there_is_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "sections_of", lambda suites: [])
    for table in (COMPARED, Claims(()), MomentCurves("", ""), MomentsOfTriggers("", "")):
        assert table.markdown() == ""
    assert Readings("").markdown() == ""


def test_a_figure_names_the_runs_from_which_it_was_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(runs, "FOLDER", tmp_path)
    monkeypatch.setattr(documents, "PROJECT", tmp_path)
    figure = Figure("docs/costs.png", "mine", "pictures", documents.cost_figure, "Accuracy")
    monkeypatch.setattr(documents, "FIGURES", {"costs": figure})
    made = read(save(tmp_path / "results", suite(tasks=["pictures", "words"]))).runs
    runs.published.cache_clear()
    runs.write_rows("mine", map(runs.row_of, made))
    assert list(documents.draw_all()) == [tmp_path / "docs" / "costs.png"]
    assert figure.drawn_from() == figure.runs_sha256()
    assert figure.markdown(tmp_path / "README.md") == "![Accuracy](docs/costs.png)\n"
    runs.write_rows("mine", map(runs.row_of, made[1:]))
    assert figure.drawn_from() != figure.runs_sha256()
    runs.published.cache_clear()


def test_the_example_has_no_links_to_files_that_it_lacks() -> None:
    page = (
        '<a href="runs.csv">runs.csv</a> has a row for each run, with plain numbers.\n'
        '<p class="files">This table: <a href="tables/matrix.csv">CSV</a>.</p>\n'
        '<p class="files">Figures: costs (<a href="figures/a-costs.png">PNG</a>, '
        '<a href="figures/a-costs.svg">SVG</a>).</p>\n'
    )
    assert re.findall('href="(.*?)"', command.page_alone(page)) == ["figures/a-costs.png"]
