"""Two runs, or two results folders, side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.command_line import main
from harness.storage.store import Store
from tests.helpers.records import RECORD, record

Compare = Callable[[Any, Any], list[str]]


@pytest.fixture
def compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Compare:
    """Save two records and return what ``compare`` prints of them."""

    def compared(first: Any, second: Any) -> list[str]:
        store = Store(tmp_path)
        for name, each in (("one", first), ("other", second)):
            store.open_run(name)
            store.save(each | {"run_id": name})
        assert main(["compare", "one", "other", "--results", str(tmp_path)]) == 0
        return capsys.readouterr().out.splitlines()

    return compared


def cells(lines: list[str], name: str) -> list[str]:
    """Return the cells of a row: A, B, and B - A or B / A."""
    (line,) = [line for line in lines if line.startswith(f"  {name} ")]
    cells = line.removeprefix(f"  {name} ").split("  ")
    return [cell.strip() for cell in cells if cell.strip()]


def test_figures_and_their_ratios(compare: Compare) -> None:
    lines = compare(RECORD, record(cost__step_ms=10.0, quality__test=98.0, cost__macs=None))
    assert lines[:2] == ["A  one", "B  other"]
    assert cells(lines, "test accuracy") == ["97.25", "98", "+0.75"]
    assert cells(lines, "training step") == ["20 ms", "10 ms", "0.5"]
    assert cells(lines, "size on disk") == ["8.5 kB", "8.5 kB", "1"]
    assert cells(lines, "weights removed") == ["98 %", "98 %"]
    assert cells(lines, "multiply-accumulates carried out") == ["123,456", "-"]


def test_columns_are_aligned(compare: Compare) -> None:
    lines = compare(RECORD, record(cost__step_ms=10.0))[3:]
    header = lines[0]
    assert header.split() == ["A", "B", "B", "-", "A", "B", "/", "A"]
    step = next(line for line in lines if line.startswith("  training step"))
    assert step.index("20 ms") + len("20 ms") == header.index("A") + 1
    assert max(map(len, lines)) <= 100


def test_only_what_was_asked_for_differently_is_named(compare: Compare) -> None:
    lines = compare(
        RECORD,
        record(
            spec__pruner="snip",
            spec__overrides={"width": 8},
            settings__width=8,
            status="collapsed",
        ),
    )
    assert cells(lines, "pruner") == ["earlycrop_u", "snip"]
    assert cells(lines, "width") == ["32", "8"]
    assert cells(lines, "status") == ["done", "collapsed"]
    assert not any(line.strip().startswith(("seed", "profile", "data")) for line in lines)


def test_other_data_are_named(compare: Compare) -> None:
    lines = compare(RECORD, record(data__sha256="b" * 64))
    assert cells(lines, "data") == ["a" * 8, "b" * 8]
    assert lines[-1] == "Different data: quality is not compared."
    assert not any(line.startswith("  test") for line in lines)


def test_other_tasks_have_neither_differences_nor_ratios(compare: Compare) -> None:
    lines = compare(RECORD, record(spec__task="points", cost__step_ms=10.0))
    assert lines[-1] == "Different tasks (digits and points): quality and ratios are not compared."
    assert not any(line.startswith("  test") for line in lines)
    assert cells(lines, "training step") == ["20 ms", "10 ms"]


@pytest.mark.parametrize(
    "change",
    [
        {"provenance__device": "X"},
        {"provenance__threads": 3},
        {"provenance__versions": {"torch": "1.0"}},
        {"provenance__runs_on_device": 2},
        {"provenance__denormals_flushed": False},
    ],
)
def test_times_memory_and_energy_of_other_machines_are_not_compared(
    compare: Compare, change: dict[str, Any]
) -> None:
    lines = compare(RECORD, record(**change))
    assert lines[-1] == "Times, memory and energy of different machines are not compared."
    for name in (
        *("training time", "energy", "emissions", "training step", "inference of a batch"),
        *("peak memory of the run", "peak memory of a step"),
    ):
        assert not any(line.startswith(f"  {name} ") for line in lines)
    assert cells(lines, "parameters in memory") == ["2,010", "2,010", "1"]


def test_costs_that_contain_an_instrument_have_no_ratio(compare: Compare) -> None:
    observed = {"spec__overrides": {"kernel": "on"}, "settings__kernel": "on"}
    old = record(**observed)
    del old["cost"]["instrument_seconds"]
    lines = compare(RECORD, old)
    assert cells(lines, "peak memory of the run") == ["50 MB", "50 MB"]
    assert cells(lines, "training step") == ["20 ms", "20 ms", "1"]


def test_a_time_that_other_work_disturbed_has_no_ratio(compare: Compare) -> None:
    lines = compare(RECORD, record(cost__disturbed={"step_ms": 0.3}))
    assert cells(lines, "training step") == ["20 ms", "20 ms"]
    assert lines[-1] == "No ratio: disturbed by other programs (training step)."


def test_other_metrics_are_not_compared(compare: Compare) -> None:
    lines = compare(RECORD, record(quality__metric="perplexity"))
    assert lines[-1] == "Different metrics are not compared."
    assert not any(line.startswith("  test") for line in lines)


class TestFolders:
    @staticmethod
    def save(folder: Path, *records: Any) -> None:
        store = Store(folder)
        for each in records:
            store.open_run(each["run_id"])
            store.save(each)

    def test_runs_are_paired_by_what_was_asked_for(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def of(seed: int, **changes: Any) -> Any:
            return record(run_id=f"run-{seed}", spec__seed=seed, **changes)

        self.save(tmp_path / "one", of(0), of(1), of(2), of(3))
        moved = of(1, quality__test=50.0)
        diverged = of(3, quality__test=None, status="diverged")
        self.save(tmp_path / "other", of(0), moved, diverged, of(4))
        assert main(["compare", str(tmp_path / "one"), str(tmp_path / "other")]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        run = ["digits", "earlycrop_u", "0.98", "seed"]
        assert lines[3:9] == [
            ["run", "metric", "A", "B"],
            [*run, "0", "embedded", "accuracy", "97.25", "97.25", "equal"],
            [*run, "1", "embedded", "accuracy", "97.25", "50", "differs"],
            [*run, "2", "embedded", "accuracy", "97.25", "-", "only", "in", "A"],
            [*run, "3", "embedded", "accuracy", "97.25", "diverged", "differs"],
            [*run, "4", "embedded", "accuracy", "-", "97.25", "only", "in", "B"],
        ]

    @pytest.mark.parametrize(
        ("moved", "verdict"),
        [
            ([-1.0, -1.2, -0.8], ["-1", "-1.497", "to", "-0.5032", "3", "more", "than", "noise"]),
            ([-1.0, 2.0, -0.5], ["+0.1667", "-3.826", "to", "+4.159", "3", "within", "noise"]),
            ([-1.0, -1.0], ["-1", "-1", "to", "-1", "2", "too", "few", "seeds", "to", "tell"]),
            ([-1.0], ["-1", "-", "1", "too", "few", "seeds", "to", "tell"]),
        ],
    )
    def test_a_change_is_held_against_the_noise_between_seeds(
        self,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        moved: list[float],
        verdict: list[str],
    ) -> None:
        runs = [record(run_id=f"run-{s}", spec__seed=s) for s in range(len(moved))]
        self.save(tmp_path / "one", *runs)
        test = RECORD["quality"]["test"]
        for each, by in zip(runs, moved, strict=True):
            each["quality"] = each["quality"] | {"test": test + by}
        self.save(tmp_path / "other", *runs)
        assert main(["compare", str(tmp_path / "one"), str(tmp_path / "other")]) == 0
        last = capsys.readouterr().out.splitlines()[-1].split()
        assert last == ["digits", "earlycrop_u", "0.98", "embedded", "accuracy", *verdict]

    @pytest.mark.parametrize(
        ("part", "value"),
        [("status", "collapsed"), ("quality__validation", 0.5), ("sparsity__weights", 0.5)],
    )
    def test_runs_with_any_other_outcome_differ(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str, value: object
    ) -> None:
        self.save(tmp_path / "one", RECORD)
        self.save(tmp_path / "other", record(**{part: value}))
        main(["compare", str(tmp_path / "one"), str(tmp_path / "other")])
        assert capsys.readouterr().out.rstrip().endswith("differs")

    def test_two_empty_folders_are_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["compare", str(tmp_path), str(tmp_path)]) == 2
        assert "contains a run that is done" in capsys.readouterr().err

    def test_a_folder_and_a_run_are_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.save(tmp_path, RECORD)
        run = str(tmp_path / RECORD["run_id"])
        assert main(["compare", str(tmp_path), run]) == 2
        complaint = f"cannot compare a results folder ({tmp_path}) with a run ({run})"
        assert complaint in capsys.readouterr().err

    def test_one_damaged_record_costs_one_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.save(tmp_path / "one", RECORD)
        self.save(tmp_path / "other", RECORD, record(run_id="bad"))
        path = tmp_path / "other" / "bad" / "record.json"
        path.write_text("null")
        assert main(["compare", str(tmp_path / "one"), str(tmp_path / "other")]) == 0
        said = capsys.readouterr()
        assert said.err == f"warning: {path} is damaged; remove it to run again\n"
        assert said.out.rstrip().endswith("equal")


class TestJson:
    def object(self, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
        assert main(["compare", *words, "--json"]) == 0
        said: dict[str, Any] = json.loads(capsys.readouterr().out)
        return said

    def test_of_two_runs(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        changes = {"quality__test": 48.625, "cost__macs": None, "spec__pruner": "snip"}
        TestFolders.save(tmp_path, record(run_id="one"), record(run_id="other", **changes))
        said = self.object(capsys, "one", "other", "--results", str(tmp_path))
        assert (said["a"], said["b"], said["metric"]) == ("one", "other", "accuracy")
        assert said["differences"]["pruner"] == {"a": "earlycrop_u", "b": "snip"}
        assert said["quality"]["test"] == {
            "a": 97.25,
            "b": 48.625,
            "ratio": 0.5,
            "difference": -48.625,
        }
        assert said["costs"]["macs"] == {"a": 123_456, "b": None, "ratio": None}
        assert said["costs"]["step_ms"]["ratio"] == 1
        assert said["not_compared"] == []

    def test_it_has_the_ratios_of_the_text_and_no_others(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        other = record(run_id="other", cost__disturbed={"step_ms": 0.3})
        elsewhere = record(run_id="elsewhere", spec__task="points")
        TestFolders.save(tmp_path, record(run_id="one"), other, elsewhere)
        said = self.object(capsys, "one", "other", "--results", str(tmp_path))
        assert said["costs"]["step_ms"] == {"a": 20.0, "b": 20.0, "ratio": None}
        assert said["costs"]["inference_ms"]["ratio"] == 1
        said = self.object(capsys, "one", "elsewhere", "--results", str(tmp_path))
        assert (said["metric"], said["quality"]) == (None, {})
        assert {cost["ratio"] for cost in said["costs"].values()} == {None}

    def test_of_other_machines(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        other = record(run_id="other", provenance__device="X")
        TestFolders.save(tmp_path, record(run_id="one"), other)
        said = self.object(capsys, "one", "other", "--results", str(tmp_path))
        assert "step_ms" in said["not_compared"]
        assert "step_ms" not in said["costs"]
        assert said["costs"]["disk_bytes"]["ratio"] == 1

    def test_of_two_folders(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        runs = [record(run_id=f"run-{seed}", spec__seed=seed) for seed in range(3)]
        TestFolders.save(tmp_path / "one", *runs)
        for each, moved in zip(runs, (-1.0, -1.25, -0.75), strict=True):
            each["quality"] = each["quality"] | {"test": 97.25 + moved}
        TestFolders.save(tmp_path / "other", *runs[:2], {**runs[2], "status": "diverged"})
        said = self.object(capsys, str(tmp_path / "one"), str(tmp_path / "other"))
        assert said["runs"][0] == {
            "run": "digits earlycrop_u 0.98 seed 0 embedded",
            "metric": "accuracy",
            "a": {"status": "done", "test": 97.25},
            "b": {"status": "done", "test": 96.25},
            "verdict": "differs",
        }
        (over_seeds,) = said["over_seeds"]
        assert (over_seeds["difference"], over_seeds["seeds"]) == (-1.0, 3)
        assert over_seeds["low"] < -1 < over_seeds["high"]
