"""From a results folder to what counts."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.command_line import main
from harness.results.intervals import stratified
from harness.storage.measurements import save_measurement
from reports.charts import chart_data
from reports.groups import Group, Section, normalised, sections
from reports.lengths import over_lengths
from reports.quantities import COSTS, paper_disk
from reports.ranking import rankings
from reports.ranking import verdicts as verdicts_of
from reports.results import Run, read, run_of
from reports.tables import matrix, ranking_table, result_table
from tests.helpers.fabricated import left_out, record, save, save_matrix, slim, suite

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


def with_test(pruner: str, seed: int, test: float, **changes: Any) -> Any:
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
    assert [run.run_id for run in results.runs] == ["new"]
    assert results.notes == ["old: another run of the same seed counts in its place"]


@pytest.mark.parametrize("what", ["task", "pruner"])
def test_runs_of_an_older_version_do_not_count(tmp_path: Path, what: str) -> None:
    """Version 10 is newer than 9, and the runs of other seeds are not comparable with it."""

    def of(seed: int, run_id: str, version: int) -> Any:
        versions: dict[str, Any] = {f"{what}__version": version}
        return record(seed=seed, run_id=run_id, **versions)

    old = [of(seed, f"old{seed}", 9) for seed in range(3)]
    new = of(0, "new", 10)
    results = read(save(tmp_path, [*old, new]))
    assert [run.run_id for run in results.runs] == ["new"]
    assert results.notes[0] == f"old0 is of an older version of its {what}"


def test_runs_of_an_older_engine_do_not_count(tmp_path: Path) -> None:
    """Records that do not say their engine are of the first."""
    old = [record(seed=seed, run_id=f"old{seed}") for seed in range(3)]
    for each in old:
        del each["engine"]
    new = record(seed=0, run_id="new")
    results = read(save(tmp_path, [*old, new]))
    assert [run.run_id for run in results.runs] == ["new"]
    assert results.notes[0] == "old0 is of an older version of the engine"


def test_of_a_plug_in_the_version_that_ran_last_counts(tmp_path: Path) -> None:
    first = record(seed=1, run_id="a", pruner__version="f00d")
    second = record(seed=2, run_id="b", pruner__version="beef")
    assert [run.run_id for run in read(save(tmp_path, [first, second])).runs] == ["b"]


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
        assert [run.reason for run in read(tmp_path).runs] == [
            "is not finished, and not counted",
            "requested, not run yet",
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
        assert [run.run_id for run in results.runs] == [done["run_id"]]
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
            f"matrices/{file.name} is damaged; what it asked for is unknown"
        ]


def test_networks_measured_again_on_one_machine_are_pooled(tmp_path: Path) -> None:
    folder = save(
        tmp_path,
        [
            record(seed=0, cost__step_ms=10.0),
            record(seed=1, cost__step_ms=99.0, provenance__device="Abacus 2"),
        ],
    )
    for run in sorted(folder.iterdir()):
        environment = {"device": "Abacus 3", "threads": 2, "machine": "c3"}
        measured = {"machine": "c3", "taken": "2026", "environment": environment}
        save_measurement(run, {**measured, "cost": {"step_ms": 7.0, "disturbed": {}}})
    (section,) = sections(read(folder))
    (only,) = section.groups
    assert (only.intervals["step_ms"].mean, only.intervals["step_ms"].n) == (7.0, 2)
    assert only.intervals["train_seconds"].n == 1, "the runs themselves were on two machines"
    assert section.machine.network == "Abacus 3, 2 threads, machine c3"
    (elsewhere,) = sections(read(folder, device="Abacus 9"))
    assert elsewhere.groups[0].intervals["step_ms"].n == 1


def test_times_of_other_machines_are_not_pooled(sections_of: Read) -> None:
    (section,) = sections_of(
        record(seed=0, cost__step_ms=10.0),
        record(seed=1, cost__step_ms=10.0),
        record(seed=2, cost__step_ms=99.0, provenance__device="Abacus 2"),
        record(pruner="grasp", provenance__device="Abacus 2"),
    )
    assert group(section, "snip").intervals["step_ms"].n == 2
    assert set(section.machine) == {"Abacus 1, 1 thread, torch 2.14.1, machine a1b2c3d4e5f6"}
    assert group(section, "snip").intervals["step_ms"].mean == 10.0
    assert group(section, "snip").intervals["disk_bytes"].n == 3
    grasp = group(section, "grasp")
    assert "step_ms" not in grasp.intervals
    assert grasp.reasons["step_ms"] == (
        "measured on another machine: Abacus 2, 1 thread, torch 2.14.1, machine a1b2c3d4e5f6"
    )


def test_networks_that_are_still_to_be_measured_do_not_choose_the_machine(
    sections_of: Read,
) -> None:
    later: dict[str, Any] = {
        "cost__step_ms": None,
        "cost__inference_ms": None,
        "cost__reasons": dict.fromkeys(("step_ms", "inference_ms"), "still to be measured"),
    }
    (section,) = sections_of(
        record(cost__step_ms=10.0, provenance__device="Abacus 2"),
        *(record(pruner="grasp", seed=seed, **later) for seed in (0, 1)),
    )
    assert section.machine.network == "Abacus 2, 1 thread, torch 2.14.1, machine a1b2c3d4e5f6"
    assert group(section, "snip").intervals["step_ms"].mean == 10.0
    assert group(section, "grasp").reasons["step_ms"] == "still to be measured"


@pytest.mark.parametrize(
    "changes",
    [
        {"provenance__threads": 2},
        {"provenance__runs_on_device": 2},
        {"provenance__versions": {"torch": "1.0"}},
        {"provenance__versions": {"torch": "2.14.1", "cuda": "12.8"}},
        {"provenance__denormals_flushed": False},
        {"provenance__machine": "0123abcd"},
        {"provenance__device_kind": "cuda", "provenance__deterministic": {"cudnn_benchmark": True}},
    ],
)
def test_a_machine_is_another_one_with_other_settings(
    sections_of: Read, changes: dict[str, Any]
) -> None:
    (section,) = sections_of(record(seed=0), record(seed=1), record(seed=2, **changes))
    assert group(section, "snip").intervals["peak_step_bytes"].n == 2
    assert group(section, "snip").intervals["macs"].n == 3
    assert len(section.machines) == 2


def test_a_failed_run_is_named_beside_the_mean_and_has_no_score(sections_of: Read) -> None:
    (section,) = sections_of(
        with_test("dense", 0, 95.0),
        with_test("snip", 0, 95.0),
        record(seed=1, status="failed", reason="No space left on device"),
        record(seed=2, status="diverged", reason="the loss is nan"),
    )
    snip = group(section, "snip")
    assert (snip.intervals["test"].n, snip.status) == (1, "failed")
    assert snip.remark == "1 diverged, 1 failed of 3"
    assert normalised(section, snip) == {0: 1.0, 2: 0.0}


def test_whatever_is_lost_scores_nothing_alike(sections_of: Read) -> None:
    """Worse than ignoring the input is no worse than to diverge or to collapse."""
    (section,) = sections_of(
        record("words", "dense", quality__test=120.0),
        record("words", seed=0, quality__test=900.0),
        record("words", seed=1, status="collapsed", quality__test=605.0),
        record("words", seed=2, status="diverged", reason="the loss is nan"),
        record("words", seed=3, quality__test=72.0),
    )
    scores = normalised(section, group(section, "snip"))
    assert scores == {0: 0.0, 1: 0.0, 2: 0.0, 3: pytest.approx(1.1)}


def test_runs_that_diverged_have_no_costs(sections_of: Read) -> None:
    """One that ended in the first epoch is not the cheapest."""
    (section,) = sections_of(
        record(seed=0, cost__train_seconds=20.0),
        record(seed=1, status="diverged", cost__train_seconds=0.3, cost__epochs=1.0),
        record(pruner="grasp", status="diverged", cost__train_seconds=0.3),
    )
    assert group(section, "snip").intervals["train_seconds"].mean == 20.0
    assert group(section, "snip").intervals["epochs"].mean == 10.0
    grasp = group(section, "grasp")
    assert not grasp.intervals.keys() & set(COSTS)
    assert grasp.reasons["epochs"] == "diverged: a run that ended early has no costs to compare"
    assert grasp.intervals["weight_sparsity"].n == 1


ON: dict[str, Any] = {
    "spec__overrides": {"kernel": "on"},
    "provenance__started": "2026-02-01T00:00:00+00:00",
}


class TestObservation:
    """Runs with ``kernel=true``, begun after those without."""

    @staticmethod
    def observed(**changes: Any) -> Any:
        made = record(run_id="observed", cost__peak_run_bytes=855_000_000, **ON, **changes)
        made["events"][0]["kernel"] = {"change": 0.3, "alignment": 0.9}
        if "cost__instrument_seconds" not in changes:
            del made["cost"]["instrument_seconds"]
        return made

    def test_a_run_without_counts_and_takes_the_readings(self, tmp_path: Path) -> None:
        plain = record(run_id="plain", cost__peak_run_bytes=175_000_000)
        results = read(save(tmp_path, [plain, self.observed()]))
        (run,) = results.runs
        assert (run.run_id, run.quantities["peak_run_bytes"]) == ("plain", 175_000_000)
        assert (run.quantities["kernel_change"], run.quantities["kernel_alignment"]) == (0.3, 0.9)
        assert results.notes == ["observed: another run of the same seed counts in its place"]

    def test_what_the_instrument_costs_is_no_cost_of_the_method(self, sections_of: Read) -> None:
        (section,) = sections_of(self.observed())
        snip = group(section, "snip")
        assert "peak_run_bytes" not in snip.intervals
        assert snip.reasons["peak_run_bytes"] == (
            "measured with kernel=true, whose own cost it contains"
        )
        assert snip.intervals["step_ms"].n == 1

    def test_costs_without_the_instrument_count(self, sections_of: Read) -> None:
        (section,) = sections_of(self.observed(cost__instrument_seconds=3.5))
        assert group(section, "snip").intervals["peak_run_bytes"].mean == 855.0e6

    def test_a_failure_without_does_not_hide_a_result_with(self, tmp_path: Path) -> None:
        failed = record(run_id="plain", status="failed", reason="killed")
        results = read(save(tmp_path, [failed, self.observed()]))
        assert [run.run_id for run in results.runs] == ["observed"]

    def test_off_is_no_observation(self, tmp_path: Path) -> None:
        off = record(spec__overrides={"kernel": "off"})
        (run,) = read(save(tmp_path, [off])).runs
        assert not run.observed
        assert run.quantities["peak_run_bytes"] is not None


OLD = {"before": {"change": 0.5, "alignment": 0.9}, "after": {"change": 0.7, "alignment": 0.8}}
"""Distances to the first kernel."""


class TestKernel:
    @staticmethod
    def read(folder: Path, kernel: dict[str, Any], spent: int) -> Run:
        made = record(**ON)
        made["events"][0] |= {"kernel": kernel, "spent": spent}
        (run,) = read(save(folder, [made])).runs
        return run

    def test_the_change_is_the_distance_that_the_pruning_makes(self, tmp_path: Path) -> None:
        matrices = {"before": [[1.0]], "after": [[2.5]]}
        run = self.read(tmp_path, {"change": 1.5, "alignment": 1.0, **matrices}, spent=300)
        assert (run.quantities["kernel_change"], run.quantities["kernel_alignment"]) == (1.5, 1.0)

    def test_an_old_record_knows_it_at_the_start(self, tmp_path: Path) -> None:
        old = {"before": {"change": 0.0, "alignment": 1.0}, "after": OLD["after"]}
        assert self.read(tmp_path, old, spent=0).quantities["kernel_change"] == 0.7

    def test_an_old_record_does_not_know_it_later(self, tmp_path: Path) -> None:
        run = self.read(tmp_path, OLD, spent=300)
        assert run.quantities["kernel_change"] is None
        why = "the record has distances to the first kernel only"
        assert run.reasons["kernel_change"] == why


def test_scores_of_a_metric_that_is_to_be_small(sections_of: Read) -> None:
    """Half of the way from 600, the baseline, to 100, of dense."""
    (section,) = sections_of(
        record("words", "dense", quality__test=100.0), record("words", "snip", quality__test=350.0)
    )
    scores = normalised(section, group(section, "snip"))
    assert scores == {0: 0.5}


def test_the_talks_size_on_disk_by_hand() -> None:
    layers: list[Any] = [{"shape": [4, 3, 2, 2], "kept": 10}, {"shape": [5, 4], "kept": 20}]
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
            ((1e-14, 2e-14, 1e-14), "max", "level"),
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
            "no sparsity requested",
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

    def test_the_best_of_each_block_and_what_cannot_be_told_from_it(
        self, sections_of: Read
    ) -> None:
        milliseconds = {
            "crop_s": (3.0, 3.1, 2.9),
            "snap": (2.0, 2.1, 1.9),
            "snip": (9.0, 9.1, 8.9),
            "grasp": (8.0, 8.1, 7.9),
            "crop_u": (8.0, 8.0, 8.1),
        }
        (section,) = sections_of(
            *(
                record(pruner=p, seed=seed, cost__step_ms=ms, cost__macs=1000 * (1 + place))
                for place, (p, each) in enumerate(milliseconds.items())
                for seed, ms in enumerate(each)
            )
        )
        block = "98\N{NO-BREAK SPACE}% removed"
        assert self.column(section, "Training step (ms)") == {
            f"Structured, {block}: CroP-S": ("3", None),
            f"Structured, {block}: SNAP": ("2", "best"),
            f"Unstructured, {block}: CroP-U": ("8.033", "best"),
            f"Unstructured, {block}: GraSP": ("8", "best"),
            f"Unstructured, {block}: SNIP": ("9", None),
        }

    def test_equal_arithmetic_is_equal_whatever_the_clock_says(self, sections_of: Read) -> None:
        (section,) = sections_of(
            *(
                record(pruner=p, seed=seed, cost__inference_ms=ms + seed / 1000)
                for p, ms in (("snip", 8.928), ("grasp", 9.014))
                for seed in range(3)
            )
        )
        column = self.column(section, "Inference of a batch (ms)")
        assert {rank for _, rank in column.values()} == {None}

    def test_what_other_work_disturbed_is_marked_and_never_bold(self, sections_of: Read) -> None:
        disturbed: dict[str, Any] = {"cost__disturbed": {"train_seconds": 0.2}}
        (section,) = sections_of(
            *(record(seed=s, cost__train_seconds=20.0 + s) for s in range(3)),
            *(record(pruner="crop_u", seed=s, cost__train_seconds=40.0 + s) for s in range(3)),
            *(record(pruner="ltr", seed=s, cost__train_seconds=9.0, **disturbed) for s in range(3)),
        )
        column = self.column(section, "Training time (s)")
        ranks = {name.rpartition(" ")[2]: cell for name, cell in column.items()}
        assert (ranks["LTR"], ranks["SNIP"]) == (("9*", None), ("21", "best"))
        assert any("marked *" in note for note in result_table(section).notes)

    def test_charts_know_what_other_work_disturbed(self, tmp_path: Path) -> None:
        results = read(save(tmp_path, [record(cost__disturbed={"step_ms": 0.2})]))
        (section,) = sections(results)
        (drawn,) = chart_data(section, results, over_lengths(section, results))["groups"]
        assert drawn["disturbed"] == ["step_ms"]

    def test_one_seed_is_never_bold(self, sections_of: Read) -> None:
        (section,) = sections_of(
            *(with_test("snip", s, 90.0 + s) for s in range(3)),
            *(with_test("crop_u", s, 50.0 + s) for s in range(3)),
            with_test("grasp", 0, 99.0),
        )
        column = self.column(section, "Test accuracy")
        assert {n.rpartition(" ")[2]: rank for n, (_, rank) in column.items()} == {
            "SNIP": "best",
            "CroP-U": None,
            "GraSP": None,
        }

    def test_with_two_seeds_nothing_is_bold(self, sections_of: Read) -> None:
        (section,) = sections_of(
            *(with_test("snip", s, 90.0) for s in range(2)),
            *(with_test("grasp", s, 50.0) for s in range(2)),
        )
        assert {r for _, r in self.column(section, "Test accuracy").values()} == {None}

    def test_the_metric_of_seeds_that_are_not_shared_is_compared_too(
        self, sections_of: Read
    ) -> None:
        (section,) = sections_of(
            *(with_test("snip", s, 90.0 + s / 10) for s in range(3)),
            *(with_test("grasp", s, 80.0 + s / 10) for s in range(3, 6)),
            *(with_test("crop_u", s, 90.0 - s / 10) for s in range(3)),
        )
        ranks = {
            n.rpartition(" ")[2]: r for n, (_, r) in self.column(section, "Test accuracy").items()
        }
        assert ranks == {"SNIP": "best", "CroP-U": "best", "GraSP": None}

    def test_a_run_that_diverged_is_never_bold(self, sections_of: Read) -> None:
        (section,) = sections_of(
            *(record(seed=s, cost__train_seconds=20.0 + s) for s in range(3)),
            *(record(pruner="crop_u", seed=s, cost__train_seconds=40.0 + s) for s in range(3)),
            *(
                record(pruner="grasp", seed=s, status="diverged", cost__train_seconds=0.3)
                for s in range(3)
            ),
        )
        column = self.column(section, "Training time (s)")
        ranks = {name.rpartition(" ")[2]: cell for name, cell in column.items()}
        assert ranks["GraSP"] == ("\N{EN DASH}", None)
        assert ranks["SNIP"] == ("21", "best")

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
    assert ranking.ranked[0].verdict == "too few seeds"


def with_scores(**scores: tuple[float, ...]) -> list[dict[str, Any]]:
    """Return runs on the task whose baseline is 10 and whose dense network has 95."""
    made = [with_test("dense", seed, 95.0) for seed in range(3)]
    for pruner, of_seeds in scores.items():
        made += [with_test(pruner, s, 10 + 85 * score) for s, score in enumerate(of_seeds)]
    return made


def test_a_score_has_the_interval_of_students_t(sections_of: Read) -> None:
    """Half of it is 4.3027 standard errors of three seeds, more than their whole range."""
    (ranking,) = rankings(sections_of(*with_scores(snip=(0.4, 0.5, 0.6), ltr=(0.2, 0.3, 0.1))))
    score = ranking.ranked[0].score
    assert (score.mean, score.low, score.n) == (  # type: ignore[comparison-overlap]
        pytest.approx(0.5),
        pytest.approx(0.5 - 4.3027 * 0.1 / 3**0.5, abs=1e-5),
        3,
    )


@pytest.mark.parametrize(
    ("snip", "verdict"),
    [
        ((0.5, 0.6, 0.7), "better"),
        ((0.35, 0.45, 0.6), "not distinguishable"),
    ],
)
def test_the_ranking_compares_with_the_next_paired_by_seed(
    sections_of: Read, snip: tuple[float, ...], verdict: str
) -> None:
    """Seeds differ by 0.1, and each of the first case by 0.1 from its pair."""
    (ranking,) = rankings(sections_of(*with_scores(snip=snip, ltr=(0.4, 0.5, 0.59))))
    assert [row.verdict for row in ranking.ranked] == [verdict, ""]


def test_a_difference_of_scores_is_two_sided() -> None:
    seeds = {0: 0.1, 1: 0.11, 2: 0.09}
    better, worse = ({s: sign * d for s, d in seeds.items()} for sign in (1, -1))
    differences = [stratified([[each]]) for each in (better, worse)]
    assert verdicts_of(differences) == ["better", "worse"]


def test_a_run_that_failed_is_not_ranked_and_is_said(sections_of: Read) -> None:
    full = "No space left on device"
    records = with_scores(crop_u=(0.5, 0.6, 0.7), ltr=(0.4, 0.5, 0.6))
    records += [record(seed=s, status="failed", reason=full) for s in range(3)]
    (ranking,) = rankings(sections_of(*records))
    assert [row.title for row in ranking.ranked] == ["CroP-U", "LTR"]
    assert ranking.failed == ["SNIP, 3 of 3 on Small pictures, ConvNet at 98 %"]
    notes = ranking_table(ranking).notes
    assert f"Failed runs are not results and have no score: {ranking.failed[0]}." in notes


class TestBadInput:
    def refused(self, folder: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
        assert main(["report", "--results", str(folder), "--out", str(out)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    def test_an_empty_folder(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        line = self.refused(tmp_path, tmp_path / "out", capsys)
        assert line == f"error: results folder {tmp_path} contains no runs"

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
            ("{", "bad: record.json is damaged; remove it to run again"),
            ("[]", "bad: record.json is damaged; remove it to run again"),
            (
                '{"schema": 1}',
                "bad: record.json is damaged: $: lacks 'run_id'; remove it to run again",
            ),
            (
                json.dumps(record(quality__test="good")),
                "bad: record.json is damaged: $.quality.test: "
                "expected a number or null, got a string; remove it to run again",
            ),
            (
                json.dumps(record(cost={})),
                "bad: record.json is damaged: $.cost: lacks 'train_seconds'; "
                "remove it to run again",
            ),
            (
                json.dumps(record(schema=0)),
                "bad: record.json: has schema 0, older than 1, the oldest that can be read",
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
        assert (reasons["test"], reasons["step_ms"]) == ("is not finite", "not measured")

    def test_a_run_that_is_not_finished_is_named(self, tmp_path: Path) -> None:
        save(tmp_path, [record()])
        (tmp_path / "half").mkdir()
        (tmp_path / "half" / "journal.jsonl").write_text("")
        assert read(tmp_path).notes == ["half: is not finished, and not counted"]


def test_runs_with_a_budget_are_a_method_of_their_own() -> None:
    plain = record(sparsity=0.0)
    budgeted = copy.deepcopy(plain)
    budgeted["spec"]["budget"] = "macs=0.25"
    assert run_of(plain).overrides == {}
    assert run_of(budgeted).overrides == {"budget": "macs=0.25"}


class TestBudgets:
    """Budgets of runs that have one, beside what their networks reach."""

    @staticmethod
    def budgeted(pruner: str, asked: float, reached: float) -> Any:
        made = record(pruner=pruner, sparsity=0.0, spec__budget=f"macs={asked:g}")
        made["run_id"] = f"pictures-{pruner}-macs{asked:g}"
        made["sparsity"]["budget"] = {
            "kind": "macs",
            "asked": asked,
            "reached": reached,
            "dense": 1e6,
        }
        return made

    def test_a_table_shows_them_and_marks_what_stays_far_below(self, sections_of: Read) -> None:
        (section,) = sections_of(
            record(pruner="dense"),
            self.budgeted("snap", 0.5, 0.498),
            self.budgeted("crop_s", 0.5, 0.4),
        )
        table = result_table(section)
        places = [
            table.columns.index(f"{name}, of dense (%)") for name in ("Budget", "Cost reached")
        ]
        rows = {
            row[0].text.partition(" ")[0]: [row[place] for place in places]
            for block in table.blocks
            for row in block.rows
        }
        assert [cell.text for cell in rows["SNAP"]] == ["50 (macs)", "49.80"]
        assert [cell.text for cell in rows["CroP-S"]] == ["50 (macs)", "40\N{DOWNWARDS ARROW}"]
        assert rows["CroP-S"][1].note.startswith("20\N{NO-BREAK SPACE}% less than permitted")
        assert [cell.text for cell in rows["Dense"]] == ["\N{EN DASH}"] * 2
        assert rows["Dense"][0].note == "no budget requested"
        assert any("at least 5\N{NO-BREAK SPACE}% less than its budget" in n for n in table.notes)

    def test_methods_of_different_budgets_are_not_ranked_together(self, sections_of: Read) -> None:
        (section,) = sections_of(
            self.budgeted("snap", 0.5, 0.498), self.budgeted("snap", 0.25, 0.249)
        )
        titles = [block.title for block in result_table(section).blocks]
        assert titles == ["Structured, macs=0.25", "Structured, macs=0.5"]

    def test_results_without_a_budget_have_no_such_columns(self, sections_of: Read) -> None:
        (section,) = sections_of(record(pruner="snap"))
        assert not any("Budget" in column for column in result_table(section).columns)


def test_times_with_sparse_kernels_stand_beside_dense_ones(sections_of: Read) -> None:
    slower = "slower than dense: sparse kernels take 1.3 times as long"
    (section,) = sections_of(
        record(pruner="dense", cost__step_sparse_ms=None),
        record(pruner="snip", cost__step_sparse_ms=4.5),
        record(
            pruner="grasp",
            cost__step_sparse_ms=None,
            cost__inference_sparse_ms=None,
            cost__reasons={"step_sparse_ms": slower, "inference_sparse_ms": slower},
        ),
    )
    table = result_table(section)
    names = [str(column) for column in table.columns]
    step = next(i for i, name in enumerate(names) if name.startswith("Training step, sparse"))
    inference = next(i for i, name in enumerate(names) if name.startswith("Inference, sparse"))
    rows = {row[0].text: row for block in table.blocks for row in block.rows}
    (snip,) = (row for name, row in rows.items() if "SNIP" in name)
    (grasp,) = (row for name, row in rows.items() if "GraSP" in name)
    assert snip[step].order == 4.5
    assert [(grasp[i].detail, grasp[i].note) for i in (step, inference)] == [
        ("slower than dense", slower)
    ] * 2
