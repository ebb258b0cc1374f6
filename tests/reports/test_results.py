"""From a results folder to what counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fabricated import left_out, record, save, save_matrix, slim, suite

from harness.command_line import main
from reports.groups import Group, Section, normalised, sections
from reports.ranking import rankings
from reports.results import paper_disk, read
from reports.tables import matrix, result_table

Read = Callable[..., list[Section]]


@pytest.fixture
def sections_of(tmp_path: Path) -> Read:
    """Save records and return the sections they make."""

    def read_again(*records: dict[str, Any]) -> list[Section]:
        return sections(read(save(tmp_path, records)))

    return read_again


def group(section: Section, method: str) -> Group:
    (found,) = [each for each in section.groups if each.method == method]
    return found


def with_test(pruner: str, seed: int, test: float, **changes: Any) -> dict[str, Any]:
    return record(pruner=pruner, seed=seed, quality__test=test, **changes)


def test_differences_are_paired_by_seed(sections_of: Read) -> None:
    """Seed 2 has no dense run, so it has no part in the difference."""
    (section,) = sections_of(
        with_test("dense", 0, 90.0),
        with_test("dense", 1, 94.0),
        with_test("snip", 0, 89.0),
        with_test("snip", 1, 92.0),
        with_test("snip", 2, 70.0),
    )
    snip = group(section, "snip")
    assert snip.intervals["test"].mean == pytest.approx((89 + 92 + 70) / 3)
    assert (snip.differences["test"].mean, snip.differences["test"].n) == (-1.5, 2)


def test_costs_are_ratios_to_dense(sections_of: Read) -> None:
    (section,) = sections_of(
        record(pruner="dense", cost__step_ms=20.0), record(pruner="crop_s", cost__step_ms=5.0)
    )
    assert group(section, "crop_s").ratios["step_ms"].mean == pytest.approx(0.25)


@pytest.mark.parametrize(
    "changes",
    [
        {"spec__profile": "paper"},
        {"data__sha256": "cd" * 32},
        {"spec__overrides": {"width": 8}},
    ],
)
def test_other_profiles_data_and_settings_are_never_pooled(
    sections_of: Read, changes: dict[str, Any]
) -> None:
    found = sections_of(
        with_test("snip", 0, 90.0), with_test("snip", 0, 10.0, run_id="b", **changes)
    )
    assert sorted(group(each, "snip").intervals["test"].mean for each in found) == [10.0, 90.0]


def test_an_option_of_a_method_makes_another_method(sections_of: Read) -> None:
    """Dense has no such setting, so it is the method's own."""
    settings = record()["settings"] | {"steps": 5}
    (section,) = sections_of(
        record(pruner="dense"),
        record(pruner="crop_u", settings=settings),
        record(pruner="crop_u", settings=settings, spec__overrides={"steps": 3}, run_id="b"),
    )
    assert {each.method for each in section.groups} == {"dense", "crop_u", "crop_u (steps=3)"}


def test_a_seed_is_never_counted_twice(tmp_path: Path) -> None:
    first = with_test(
        "snip", 0, 80.0, run_id="old", provenance__started="2026-01-01T00:00:00+00:00"
    )
    again = with_test(
        "snip", 0, 90.0, run_id="new", provenance__started="2026-02-01T00:00:00+00:00"
    )
    results = read(save(tmp_path, [first, again]))
    assert list(results.runs["run_id"]) == ["new"]
    assert results.notes == ["old: another run of the same seed counts in its place"]


@pytest.mark.parametrize("what", ["task", "pruner"])
def test_runs_of_an_older_version_do_not_count(tmp_path: Path, what: str) -> None:
    """Version 10 is newer than 9, and the runs of other seeds are not comparable with it."""
    old = [record(seed=seed, run_id=f"old{seed}", **{f"{what}__version": 9}) for seed in range(3)]
    new = record(seed=0, run_id="new", **{f"{what}__version": 10})
    results = read(save(tmp_path, [*old, new]))
    assert list(results.runs["run_id"]) == ["new"]
    assert results.notes[0] == f"old0: is of an older version of its {what}"


def test_of_a_plug_in_the_version_that_ran_last_counts(tmp_path: Path) -> None:
    first = record(seed=1, run_id="a", pruner__version="f00d")
    second = record(seed=2, run_id="b", pruner__version="beef")
    assert list(read(save(tmp_path, [first, second])).runs["run_id"]) == ["b"]


class TestWhatAMatrixAskedFor:
    def test_a_run_that_is_not_there_is_missing(self, tmp_path: Path) -> None:
        made = [record(pruner=p, seed=s) for p in ("dense", "snip") for s in range(3)]
        save(tmp_path, made)
        missing = record(seed=3, status="missing")
        (section,) = sections(read(save_matrix(tmp_path, [*made, missing])))
        snip = group(section, "snip")
        assert (snip.status, snip.remark, snip.tested) == ("done", "1 missing of 4", 3)
        assert snip.intervals["test"].n == 3
        cell = matrix([section]).blocks[0].rows[0][1]
        assert (cell.state, cell.detail) == ("worse", "1 missing of 4")

    def test_why_it_is_missing(self, tmp_path: Path) -> None:
        asked = [record(seed=seed, status="missing") for seed in range(2)]
        save_matrix(tmp_path, asked)
        begun = tmp_path / asked[0]["run_id"]
        begun.mkdir()
        (begun / "journal.jsonl").write_text("")
        assert list(read(tmp_path).runs["reason"]) == [
            "is not finished, and not counted",
            "asked for, and not run yet",
        ]

    def test_a_task_of_which_nothing_could_be_run_is_there(self, tmp_path: Path) -> None:
        impossible = left_out("words", "snip", 0.98, "no words.txt")
        here, away = sections(read(save_matrix(save(tmp_path, [record()]), [], [impossible])))
        assert (away.name, away.tested, away.stamp) == ("Many words, LSTM (paper)", False, None)
        row = matrix([here, away]).blocks[0].rows[0]
        assert [(cell.state, cell.note) for cell in row[1:]] == [
            ("alone", "no dense run to compare with"),
            ("skipped", "no words.txt"),
        ]

    def test_what_was_run_in_the_end_is_not_left_out(self, tmp_path: Path) -> None:
        done = record(spec__profile="paper")
        impossible = left_out("pictures", "snip", 0.98, "no pictures")
        results = read(save_matrix(save(tmp_path, [done]), [], [impossible]))
        assert list(results.runs["run_id"]) == [done["run_id"]]
        assert results.notes == []

    def test_what_nobody_ran_has_no_score(self, tmp_path: Path) -> None:
        records = suite(("pole",), ("dense", "snip", "ltr"), (0.98,))
        asked = [record("pole", "grasp", 0.98, seed, status="missing") for seed in range(3)]
        (ranking,) = rankings(sections(read(save_matrix(save(tmp_path, records), asked))))
        assert [row.method for row in ranking.ranked] == ["ltr", "snip"]

    def test_a_damaged_matrix_is_told(self, tmp_path: Path) -> None:
        save_matrix(save(tmp_path, [record()]), [])
        (file,) = (tmp_path / "matrices").iterdir()
        file.write_text('{"name": "everything", "command": "", "runs": ["a"], "left_out": {}}')
        assert read(tmp_path).notes == [
            f"matrices/{file.name}: is damaged; what it asked for is unknown"
        ]


def test_times_of_other_machines_are_not_pooled(sections_of: Read) -> None:
    (section,) = sections_of(
        record(seed=0, cost__step_ms=10.0),
        record(seed=1, cost__step_ms=10.0),
        record(seed=2, cost__step_ms=99.0, provenance__device="Abacus 2"),
        record(pruner="grasp", provenance__device="Abacus 2"),
    )
    assert (group(section, "snip").intervals["step_ms"].n, section.device) == (
        2,
        "Abacus 1, 1 thread",
    )
    assert group(section, "snip").intervals["step_ms"].mean == 10.0
    assert group(section, "snip").intervals["disk_bytes"].n == 3
    grasp = group(section, "grasp")
    assert "step_ms" not in grasp.intervals
    assert grasp.reasons["step_ms"] == "measured on another machine: Abacus 2, 1 thread"


def test_a_failed_run_is_named_beside_the_mean_and_scores_nothing(sections_of: Read) -> None:
    (section,) = sections_of(
        with_test("dense", 0, 95.0),
        with_test("snip", 0, 95.0),
        record(seed=1, status="failed", reason="it broke"),
        record(seed=2, status="diverged", reason="the loss is nan"),
    )
    snip = group(section, "snip")
    assert (snip.intervals["test"].n, snip.status) == (1, "failed")
    assert snip.remark == "1 diverged, 1 failed of 3"
    scores = normalised(section, snip)
    assert scores == {0: 1.0, 1: 0.0, 2: 0.0}


def test_scores_of_a_metric_that_is_to_be_small(sections_of: Read) -> None:
    """Half of the way from 600, of who ignores the input, to 100, of dense."""
    (section,) = sections_of(
        record("words", "dense", quality__test=100.0), record("words", "snip", quality__test=350.0)
    )
    scores = normalised(section, group(section, "snip"))
    assert scores == {0: 0.5}


def test_the_talks_size_on_disk_by_hand() -> None:
    layers = [{"shape": [4, 3, 2, 2], "kept": 10}, {"shape": [5, 4], "kept": 20}]
    assert paper_disk(layers) == pytest.approx((34 * 30 + 2 * (4 + 1) + 2 * (4 + 1)) / 1e6)


class TestMatrix:
    def cell(self, sections_of: Read, *differences: float, goal: str = "max") -> tuple[str, str]:
        dense = [
            with_test("dense", s, 90.0 + s, quality__goal=goal) for s in range(len(differences))
        ]
        snip = [
            with_test("snip", s, 90.0 + s + d, quality__goal=goal)
            for s, d in enumerate(differences)
        ]
        table = matrix(sections_of(*dense, *snip))
        cell = table.blocks[0].rows[0][1]
        return cell.state, cell.text

    @pytest.mark.parametrize(
        ("differences", "goal", "state"),
        [
            ((-1.0, -1.1, -0.9), "max", "worse"),
            ((-1.0, -1.1, -0.9), "min", "better"),
            ((1.0, 1.1, 0.9), "max", "better"),
            ((1.0, -1.1, 0.3), "max", "level"),
            ((1.0, 1.0), "max", "few"),
            ((1.0,), "max", "few"),
        ],
    )
    def test_what_the_interval_says(
        self, sections_of: Read, differences: tuple[float, ...], goal: str, state: str
    ) -> None:
        assert self.cell(sections_of, *differences, goal=goal)[0] == state

    def test_every_ending_is_told_apart(self, eventful: Path) -> None:
        table = matrix(sections(read(eventful)))
        cells = [cell for block in table.blocks for row in block.rows for cell in row[1:]]
        by_state = {cell.state: cell for cell in cells}
        endings = {"failed", "skipped", "collapsed", "diverged", "missing", "unasked"}
        assert endings <= by_state.keys()
        assert len({cell.symbol for cell in by_state.values()}) == len(by_state)
        assert by_state["diverged"].detail == "2 diverged of 3"
        skipped = {cell.note for cell in cells if cell.state == "skipped"}
        assert skipped == {
            "0.98 is out of reach; nearest: 0.9512",
            "words.txt: No such file or directory",
        }

    def test_what_is_asked_for_no_sparsity_has_its_own_column(self, sections_of: Read) -> None:
        table = matrix(sections_of(record(), slim("pictures", 0, 1000, 90.0)))
        assert [name.rpartition(", ")[2] for name in table.columns[1:]] == [
            "98\N{NO-BREAK SPACE}%",
            "no sparsity asked",
        ]
        rows = {
            row[0].text: [cell.text for cell in row[1:]] for b in table.blocks for row in b.rows
        }
        assert rows["SNIP"][1] == rows["Slim dense"][0] == "\N{EN DASH}"

    def test_every_reason_is_told_once(self, sections_of: Read) -> None:
        failed = [record(pruner=p, status="failed", reason="no memory") for p in ("snip", "grasp")]
        (note,) = [n for n in matrix(sections_of(*failed)).notes if "no memory" in n]
        at = "at 98\N{NO-BREAK SPACE}%"
        assert note.endswith(f"failed: GraSP {at}, SNIP {at}: no memory")


class TestResultTable:
    def column(self, section: Section, name: str) -> dict[str, tuple[str, str | None]]:
        table = result_table(section)
        place = list(table.columns).index(name)
        return {
            f"{block.title}: {row[0].text}": (row[place].text, row[place].rank)
            for block in table.blocks
            for row in block.rows
        }

    def test_best_and_second_are_of_each_block(self, sections_of: Read) -> None:
        (section,) = sections_of(
            *(record(pruner=p, cost__step_ms=ms) for p, ms in (("crop_s", 3.0), ("snap", 2.0))),
            *(record(pruner=p, cost__step_ms=ms) for p, ms in (("snip", 9.0), ("grasp", 8.0))),
            record(pruner="crop_u", cost__step_ms=8.5),
        )
        block = "98\N{NO-BREAK SPACE}% removed"
        assert self.column(section, "Training step (ms)") == {
            f"Structured, {block}: CroP-S": ("3", "second"),
            f"Structured, {block}: SNAP": ("2", "best"),
            f"Unstructured, {block}: CroP-U": ("8.500", "second"),
            f"Unstructured, {block}: GraSP": ("8", "best"),
            f"Unstructured, {block}: SNIP": ("9", None),
        }

    def test_estimated_energy_is_marked_and_not_ranked(self, sections_of: Read) -> None:
        (section,) = sections_of(record(pruner="snip"), record(pruner="grasp"))
        column = self.column(section, "Energy (Wh)")
        assert all(text.startswith("~") and rank is None for text, rank in column.values())

    def test_what_was_not_measured_is_a_dash_with_its_reason(self, sections_of: Read) -> None:
        reason = "this system does not tell"
        (section,) = sections_of(
            record(cost__peak_run_bytes=None, cost__reasons={"peak_run_bytes": reason})
        )
        table = result_table(section)
        (cell,) = [c for c in table.blocks[0].rows[0] if c.note == reason]
        assert cell.text == "\N{EN DASH}"


def test_methods_are_ranked_where_all_were_run(sections_of: Read) -> None:
    pruners = ("dense", "snip", "random_u")
    here = suite(("pictures",), pruners, (0.98,))
    there = suite(("pole",), (*pruners, "ltr"), (0.98,))
    ranking, all_methods = rankings(sections_of(*here, *there))
    assert [row.method for row in ranking.ranked] == ["snip", "random_u"]
    assert ranking.left_out == ["LTR"]
    assert len(ranking.cells) == 2
    assert not ranking.too_few
    assert [row.method for row in all_methods.ranked] == ["ltr", "snip", "random_u"]
    assert len(all_methods.cells) == 1


def test_too_few_seeds_are_called_so(sections_of: Read) -> None:
    (ranking,) = rankings(sections_of(*suite(("pole",), ("dense", "snip", "ltr"), (0.98,), (0, 1))))
    assert ranking.too_few
    assert ranking.ranked[0].verdict == "too few seeds to tell"


class TestBadInput:
    def refused(self, folder: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
        assert main(["report", "--results", str(folder), "--out", str(out)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    def test_an_empty_folder(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        line = self.refused(tmp_path, tmp_path / "out", capsys)
        assert line == f"error: results folder {tmp_path}: holds no run"

    def test_no_folder(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert "does not exist" in self.refused(tmp_path / "none", tmp_path / "out", capsys)

    def test_a_file_where_the_report_should_be(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        save(tmp_path / "results", [record()])
        (tmp_path / "out").write_text("")
        line = self.refused(tmp_path / "results", tmp_path / "out", capsys)
        assert line.startswith("error: report folder")

    @pytest.mark.parametrize(
        ("content", "note"),
        [
            ("{", "bad: record.json: is damaged; remove it to run again"),
            ("[]", "bad: record.json: is damaged; remove it to run again"),
            (
                '{"schema": 1}',
                "bad: record.json: is damaged: run_id is missing; remove it to run again",
            ),
            (
                json.dumps(record(quality__test="good")),
                "bad: record.json: is damaged: quality.test is 'good'; remove it to run again",
            ),
            (
                json.dumps(record(cost={})),
                "bad: record.json: is damaged: cost.reasons is missing; remove it to run again",
            ),
            (
                json.dumps(record(schema=0)),
                "bad: has schema 0, older than 1, the oldest that can be read",
            ),
            (
                json.dumps(record(schema=9)),
                "bad: record.json: has schema 9, newer than 1, the newest known here; "
                "use the version of the project that wrote it",
            ),
        ],
    )
    def test_records_that_cannot_be_read_are_named(
        self, tmp_path: Path, content: str, note: str
    ) -> None:
        save(tmp_path, [record()])
        (tmp_path / "bad").mkdir()
        (tmp_path / "bad" / "record.json").write_text(content)
        results = read(tmp_path)
        assert results.notes == [note]
        assert len(results.runs) == 1

    def test_what_is_no_finite_number_is_none(self, sections_of: Read) -> None:
        infinite = record(quality__test=float("nan"), cost__step_ms=float("inf"))
        (section,) = sections_of(infinite)
        reasons = group(section, "snip").reasons
        assert (reasons["test"], reasons["step_ms"]) == ("is no finite number", "not measured")

    def test_a_run_that_is_not_finished_is_named(self, tmp_path: Path) -> None:
        save(tmp_path, [record()])
        (tmp_path / "half").mkdir()
        (tmp_path / "half" / "journal.jsonl").write_text("")
        assert read(tmp_path).notes == ["half: is not finished, and not counted"]
