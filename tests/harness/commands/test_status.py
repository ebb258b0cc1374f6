"""What a results folder says about a matrix, wherever it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from filelock import FileLock

from harness.command_line import main
from harness.matrix.dispatch import Tally
from harness.matrix.executor import Outcome
from harness.matrix.manifest import manifest_files, read_manifest, write_manifest
from harness.matrix.plan import Matrix, plan_matrix
from harness.matrix.request import MatrixRequest
from harness.matrix.state import how_far, reasons
from harness.matrix.suite import Axes, Names, Suite
from harness.registry import Registry
from harness.storage.progress import Progress, ProgressFile
from harness.storage.store import Store
from tests.helpers.records import record

COMMAND = "python -m harness matrix --suite mine"


@pytest.fixture
def matrix() -> Matrix:
    axes = Axes(Names(("digits",)), Names(("dense",)), seeds=(0, 1, 2, 3))
    suite = Suite("mine", "Mine", (axes, Axes(Names(("ptb",)), Names(("dense",)))), "paper")
    changes = {**vars(suite), "profile": "embedded"}
    registry = Registry()
    planned = plan_matrix(
        Suite(**changes), registry, overrides={}, plugins=(), data_folder=Path("data")
    )
    return Matrix("mine", planned.plans, {"snip on nyu seed 0": record(reason="no data")})


def test_a_matrix_in_all_states(
    tmp_path: Path, matrix: Matrix, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    write_manifest(matrix, tmp_path, COMMAND)
    done, failed, at_work, skipped, waiting = matrix.plans
    for run_id in (done, failed, at_work, skipped):
        store.open_run(run_id)
    store.save(record(run_id=done))
    store.save_failure(record(run_id=failed, status="failed", reason="boom"), "")
    store.save_failure(record(run_id=skipped, status="skipped", reason="no channels"), "")
    with FileLock(tmp_path / at_work / "lock"):
        assert main(["status", "--results", str(tmp_path)]) == 0
        before_the_first_epoch = capsys.readouterr().out
        ProgressFile(tmp_path / at_work).write(3, 20, "accuracy", 93.125, spent=3, left=17)
        assert main(["status", "--results", str(tmp_path)]) == 0
    assert f"  running: {at_work}\n" in before_the_first_epoch
    assert capsys.readouterr().out.splitlines() == [
        "mine: 5 runs: 1 done, 1 failed, 1 skipped, 1 running, 1 waiting",
        f"  running: {at_work}: epoch 3/20, accuracy 93.12",
        f"  failed: {failed}: boom",
        f"  skipped: {skipped}: no channels",
        "  left out: snip on nyu seed 0: no data",
        f"  to continue: {COMMAND}",
    ]
    assert not (tmp_path / waiting).exists()


def test_runs_of_no_matrix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    store.open_run("digits-dense")
    store.save(record(run_id="digits-dense", status="collapsed"))
    assert main(["status", "--results", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "1 run outside any matrix: 1 collapsed\n"


def test_the_same_matrix_is_remembered_once(tmp_path: Path, matrix: Matrix) -> None:
    write_manifest(matrix, tmp_path, COMMAND)
    write_manifest(matrix, tmp_path, COMMAND)
    assert len(list((tmp_path / "matrices").glob("*.json"))) == 1


def test_what_was_asked_for_is_remembered_as_records(tmp_path: Path) -> None:
    axes = Axes(Names(("digits", "nyu")), Names(("snip",)))
    suite = Suite("mine", "Mine", (axes,), "paper")
    registry = Registry()
    planned = plan_matrix(suite, registry, overrides={}, plugins=(), data_folder=tmp_path)
    embedded = Suite("mine", "Mine", (Axes(Names(("digits",)), Names(("snip",))),))
    here = plan_matrix(embedded, registry, overrides={}, plugins=(), data_folder=tmp_path)
    write_manifest(Matrix("mine", here.plans, planned.left_out), tmp_path, COMMAND)
    (file,) = manifest_files(tmp_path)
    written = read_manifest(file)
    ((run_id, missing),) = written.runs.items()
    assert (missing["run_id"], missing["status"]) == (run_id, "missing")
    assert str(missing["provenance"]["command"]).startswith("python -m harness run --task digits")
    impossible = written.left_out["snip on digits seed 0"]
    assert impossible["reason"] == "task 'digits' has no profile 'paper'"
    assert impossible["spec"]["sparsity"] == missing["spec"]["sparsity"]
    assert impossible["pruner"] == missing["pruner"]
    assert written.left_out["snip on nyu seed 0"]["status"] == "skipped"


def test_a_matrix_that_is_damaged_is_told(
    tmp_path: Path, matrix: Matrix, capsys: pytest.CaptureFixture[str]
) -> None:
    write_manifest(matrix, tmp_path, COMMAND)
    (file,) = (tmp_path / "matrices").glob("*.json")
    file.write_text("{")
    assert main(["status", "--results", str(tmp_path)]) == 2
    why = "is damaged; remove it, or start the matrix again"
    assert capsys.readouterr().err == f"error: {file} {why}\n"


class TestPlanning:
    def left_out(self, data_folder: Path, profile: str, *tasks: str) -> dict[str, str]:
        suite = Suite("mine", "Mine", (Axes(Names(tasks), Names(("dense",))),), profile)
        found = plan_matrix(suite, Registry(), overrides={}, plugins=(), data_folder=data_folder)
        assert not found.plans
        return reasons(found.left_out)

    def test_data_that_are_missing_cost_the_other_runs_nothing(self, tmp_path: Path) -> None:
        ((what, why),) = self.left_out(tmp_path, "paper", "ptb").items()
        assert what == "dense on ptb seed 0"
        assert "ptb.train.txt: No such file or directory" in why

    def test_a_task_without_the_profile_is_left_out(self, tmp_path: Path) -> None:
        ((what, why),) = self.left_out(tmp_path, "paper", "digits").items()
        assert (what, why) == ("dense on digits seed 0", "task 'digits' has no profile 'paper'")


def test_a_matrix_of_which_nothing_can_be_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["matrix", "--tasks", "digits", "--pruners", "dense,snip", "--profile", "paper"]
    assert main([*words, "--results", str(tmp_path / "results")]) == 2
    assert capsys.readouterr().err == (
        "error: command-line: none of its runs can be carried out: "
        "task 'digits' has no profile 'paper'\n"
    )
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("statuses", "code"),
    [(["done", "collapsed", "diverged", "skipped"], 0), (["done", "failed"], 1)],
)
def test_the_exit_code_of_a_matrix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statuses: list[str], code: int
) -> None:
    def run(request: MatrixRequest, matrix: Matrix, progress: object) -> Tally:
        outcomes = [Outcome(status, "why") for status in statuses]  # type: ignore[arg-type]
        return Tally(len(outcomes), dict(zip(matrix.plans, outcomes, strict=True)))

    monkeypatch.setattr(MatrixRequest, "run", run)
    seeds = ",".join(map(str, range(len(statuses))))
    words = ["matrix", "--tasks", "digits", "--pruners", "dense", "--seeds", seeds]
    assert main([*words, "--results", str(tmp_path)]) == code


class TestFolders:
    def status(
        self, folder: Path, capsys: pytest.CaptureFixture[str], *words: str
    ) -> tuple[int, str, str]:
        code = main(["status", "--results", str(folder), *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    def test_a_folder_that_holds_no_run_is_no_run(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "pruning_benchmark.egg-info").mkdir()
        code, _, error = self.status(tmp_path, capsys)
        assert (code, error) == (2, f"error: results folder {tmp_path} contains no runs\n")

    def test_a_missing_folder_is_called_that(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        code, _, error = self.status(tmp_path / "nowhere", capsys)
        missing = f"results folder {tmp_path / 'nowhere'} does not exist"
        assert (code, error) == (2, f"error: {missing}\n")

    def test_one_damaged_file_costs_one_line(
        self, tmp_path: Path, matrix: Matrix, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_manifest(matrix, tmp_path, COMMAND)
        (tmp_path / "matrices" / "bad.json").write_text("[" * 100_000)
        store = Store(tmp_path)
        done, damaged, *_ = matrix.plans
        for run_id in (done, damaged):
            store.open_run(run_id)
        store.save(record(run_id=done))
        (tmp_path / damaged / "record.json").write_text("null")
        code, out, error = self.status(tmp_path, capsys)
        assert (code, error) == (
            0,
            f"warning: {tmp_path / 'matrices' / 'bad.json'} is damaged; "
            "remove it, or start the matrix again\n",
        )
        assert out.splitlines()[:2] == [
            "mine: 5 runs: 1 damaged, 1 done, 3 waiting",
            f"  damaged: {damaged}: {tmp_path / damaged / 'record.json'} is damaged; "
            "remove it to run again",
        ]

    @pytest.mark.parametrize("content", ["null", "{}", '{"schema": 1, "status": "failed"}'])
    def test_a_damaged_failure_is_told(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
    ) -> None:
        (Store(tmp_path).open_run("a") / "failure.json").write_text(content)
        code, out, _ = self.status(tmp_path, capsys)
        assert code == 0
        assert out.startswith("1 run outside any matrix: 1 damaged\n  damaged: a: ")

    def test_what_was_interrupted_is_called_that(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (Store(tmp_path).open_run("a") / "journal.jsonl").touch()
        _, out, _ = self.status(tmp_path, capsys)
        assert out == "1 run outside any matrix: 1 interrupted\n  interrupted: a\n"

    def test_with_json_it_is_one_object(
        self, tmp_path: Path, matrix: Matrix, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_manifest(matrix, tmp_path, COMMAND)
        store = Store(tmp_path)
        done, failed, running, waiting, _ = matrix.plans
        for run_id in (done, failed, running, "other"):
            store.open_run(run_id)
        store.save(record(run_id=done))
        store.save(record(run_id="other", status="collapsed", reason="flat"))
        store.save_failure(record(run_id=failed, status="failed", reason="boom"), "")
        progress = ProgressFile(tmp_path / running)
        progress.write(3, 20, "accuracy", 93.125, spent=3, left=None)
        with FileLock(tmp_path / running / "lock"):
            code, out, error = self.status(tmp_path, capsys, "--json")
        assert (code, error) == (0, "")
        said = json.loads(out)
        (told,) = said["matrices"]
        assert (told["name"], told["command"]) == ("mine", COMMAND)
        assert told["counts"] == {"done": 1, "failed": 1, "running": 1, "waiting": 2}
        assert told["runs"][failed] == {"status": "failed", "reason": "boom"}
        assert told["runs"][running]["progress"] == {
            "epoch": 3,
            "epochs": 20,
            "metric": "accuracy",
            "validation": 93.125,
            "seconds_left": None,
        }
        assert told["runs"][waiting] == {"status": "waiting", "reason": None}
        assert told["left_out"] == {"snip on nyu seed 0": "no data"}
        assert said["other_runs"] == {"other": {"status": "collapsed", "reason": "flat"}}
        assert (said["again"], said["damaged"]) == ({}, [])


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (Progress(3, 20, "accuracy", 93.125, None), "epoch 3/20, accuracy 93.12"),
        (Progress(3, 20, "loss", None, 0.0), "epoch 3/20, 0 s left"),
        (Progress(25, 20, "accuracy", 50.0, None), "epoch 25 (budget: 20), accuracy 50"),
    ],
)
def test_how_far_a_run_is_in_words(progress: Progress, text: str) -> None:
    assert how_far(progress) == text
