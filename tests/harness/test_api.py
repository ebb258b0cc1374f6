"""``import harness``: the same runs, sentences and results as on the command line."""

from __future__ import annotations

import importlib.metadata
import io
import json
import operator
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.command_line import main
from harness.errors import RequestError
from harness.matrix.manifest import manifest_files, read_manifest
from harness.results import provenance
from harness.storage.store import Store
from tests.helpers.workbench import POINTS

RUN: dict[str, Any] = {"profile": "smoke", "plugins": [POINTS]}


@pytest.fixture(autouse=True)
def in_an_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unmeasured: None) -> None:
    """Run a matrix in this process, in an empty folder, and measure no final network."""
    from harness.executors.debug import Debug

    monkeypatch.setattr("harness.matrix.request.find_executor", lambda name: Debug)
    monkeypatch.chdir(tmp_path)


def as_text(record: Any) -> str:
    return json.dumps(record, sort_keys=True)


class TestRunPairing:
    def test_it_returns_the_record_that_it_writes(self) -> None:
        record = harness.run_pairing("points", "dense", **RUN)
        assert isinstance(record, dict)
        assert record["status"] == "done"
        assert json.loads(Path("results", record["run_id"], "record.json").read_text()) == record

    def test_a_budget_is_a_text(self) -> None:
        record = harness.run_pairing("points", "crop_s", budget="macs=0.5", **RUN)
        assert record["spec"]["budget"] == "macs=0.5"
        assert "--budget macs=0.5" in str(record["provenance"]["command"])
        budgets: Any = 0.5
        with pytest.raises(RequestError, match=r"budget 0\.5 is not a text, as in 'macs=0.25'"):
            harness.run_pairing("points", "crop_s", budget=budgets, **RUN)
        done = harness.run_matrix(tasks=["points"], pruners=["crop_s"], budgets=["macs=0.5"], **RUN)
        assert list(done["runs"]) == [record["run_id"]]

    def test_the_run_is_that_of_the_command_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        settings = {"epochs": 2, "floor": 0.1}
        record = harness.run_pairing("points", "snip", seed=3, settings=settings, **RUN)
        words = ["run", "--pairing", "points-snip", "--seed", "3", "--profile", "smoke"]
        words += ["--set", "epochs=2", "--set", "floor=0.1", "--plugin", str(POINTS), "--json"]
        assert main(words) == 0
        said = capsys.readouterr()
        assert said.err == f"{record['run_id']} is already done\n"
        assert json.loads(said.out.splitlines()[-1]) == record

    def test_a_run_that_is_done_is_repeated_only_on_request(self) -> None:
        first = harness.run_pairing("points", "dense", **RUN)
        assert harness.run_pairing("points", "dense", **RUN) == first
        lines = io.StringIO()
        again = harness.run_pairing("points", "dense", **RUN, again=True, progress=lines)
        assert again["quality"] == first["quality"]
        assert again["cost"]["train_seconds"] != first["cost"]["train_seconds"]
        assert lines.getvalue().splitlines()[-1] == (
            "the new result is equal to the old one, apart from costs"
        )

    def test_it_is_silent_without_a_stream(self, capsys: pytest.CaptureFixture[str]) -> None:
        harness.run_pairing("points", "dense", **RUN)
        assert capsys.readouterr() == ("", "")

    @pytest.mark.parametrize(
        ("request_", "complaint"),
        [
            ({"task": "piont"}, "unknown task 'piont'; did you mean 'points'?"),
            ({"seed": -1}, "seed -1 is negative; seeds are 0, 1, 2 ..."),
            ({"seed": 0.5}, "seed 0.5 is not a whole number"),
            ({"sparsity": "lots"}, "sparsity 'lots' is not a number"),
            ({"sparsity": 1}, r"sparsity 1 is outside \[0, 1\)"),
            ({"settings": {"epochs": "x"}}, "epochs=x is not a whole number"),
            ({"settings": {"epoch": 1}}, "did you mean 'epochs'?"),
            ({"device": "tpu"}, "unknown device 'tpu'; did you mean 'cpu'?"),
            ({"plugins": ["nowhere.py"]}, "nowhere.py cannot be read: No such file"),
        ],
    )
    def test_a_mistake_is_refused_with_the_sentence_of_the_command_line(
        self, request_: dict[str, Any], complaint: str
    ) -> None:
        wanted = {"task": "points", "pruner": "snip", **RUN, **request_}
        with pytest.raises(RequestError, match=complaint):
            harness.run_pairing(**wanted)
        assert not Path("results").exists()


class TestRunMatrix:
    def test_every_combination_is_a_run(self) -> None:
        ended = harness.run_matrix(tasks="points", pruners=["dense", "snip"], seeds=range(2), **RUN)
        assert (ended["name"], ended["waiting"], ended["left_out"]) == ("python", 0, {})
        assert len(ended["runs"]) == 4
        assert {each["status"] for each in ended["runs"].values()} == {"done"}
        assert sorted(Store(Path("results")).run_ids()) == sorted(ended["runs"])

    def test_the_manifest_has_a_command_that_asks_for_the_same_matrix(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        harness.run_matrix(
            tasks=["points"], pruners=["dense"], seeds=[2, 5], settings={"epochs": 2}, **RUN
        )
        (file,) = manifest_files(Path("results"))
        command = read_manifest(file).command
        assert command == (
            "python -m harness matrix --tasks points --pruners dense --seeds 2,5 --profile smoke "
            f"--set epochs=2 --plugin {POINTS}"
        )
        assert main([*command.split()[3:], "--dry-run"]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == "command-line: 2 runs: 2 done"

    def test_a_suite_may_be_a_file(self) -> None:
        Path("mine.toml").write_text(
            'profile = "smoke"\n[[runs]]\ntasks = ["points"]\npruners = ["dense"]\nseeds = "0-4"\n'
        )
        ended = harness.run_matrix(suite=Path("mine.toml"), seeds=[7], plugins=POINTS)
        (run_id,) = ended["runs"]
        assert run_id.startswith("points-dense-0-seed7-")

    def test_progress_goes_to_the_stream(self) -> None:
        lines = io.StringIO()
        harness.run_matrix(tasks="points", pruners="dense", progress=lines, **RUN)
        assert lines.getvalue().startswith("python: 1 run: 1 waiting\n")
        assert "[1/1] points-dense-0-seed0-" in lines.getvalue()

    @pytest.mark.parametrize(
        ("request_", "complaint"),
        [
            ({}, "--suite or --tasks is missing"),
            ({"suite": "smoek"}, "unknown suite 'smoek'; did you mean 'smoke'?"),
            ({"tasks": "all", "pruners": "snpi"}, "unknown pruner 'snpi'; did you mean 'snip'?"),
            ({"suite": "smoke", "seeds": [0, 0]}, "the axis 'seeds' has 0 twice"),
            ({"suite": "smoke", "sparsities": ["x"]}, "sparsities: 'x' is not a number"),
            ({"suite": "smoke", "jobs": 0}, "jobs: 0 is not greater than 0"),
        ],
    )
    def test_a_mistake_is_refused(self, request_: dict[str, Any], complaint: str) -> None:
        with pytest.raises(RequestError, match=complaint):
            harness.run_matrix(**request_)
        assert not Path("results").exists()


def test_two_runs_are_compared() -> None:
    first, second = (
        harness.run_pairing("points", "dense", seed=seed, **RUN)["run_id"] for seed in (0, 1)
    )
    found = harness.compare_results(first, Path("results", second))
    assert (found["a"], found["b"]) == (first, second)
    assert found["differences"]["seed"] == {"a": "0", "b": "1"}
    with pytest.raises(RequestError, match=r"cannot compare a results folder \(results\)"):
        harness.compare_results("results", first)


def test_a_report_is_written() -> None:
    harness.run_pairing("points", "dense", **RUN)
    page = harness.write_report("results", "page")
    assert page.parent == Path("page")
    assert "points" in page.read_text(encoding="utf-8")


def test_results_are_a_frame() -> None:
    pytest.importorskip("harness.results.frame")
    record = harness.run_pairing("points", "dense", **RUN)
    frame = harness.read_results("results")
    assert list(frame["run_id"]) == [record["run_id"]]


def test_a_network_is_loaded() -> None:
    record = harness.run_pairing("points", "dense", **RUN)
    network = harness.load(Path("results", record["run_id"]), plugins=[POINTS])
    assert sum(parameter.numel() for parameter in network.parameters()) > 0


class TestModule:
    def test_it_lists_its_names(self) -> None:
        names = {"advise", "run_pairing", "run_matrix", "read_results", "load", "write_report"}
        names |= {"task_from", "track_runs"}
        assert set(harness.__all__) == names | {
            "compare_results",
            "export_network",
            "measure_sensitivity",
            "__version__",
        }
        assert set(harness.__all__) <= set(dir(harness))
        with pytest.raises(AttributeError, match="'harness' has no attribute 'prune'"):
            operator.attrgetter("prune")(harness)

    def test_no_module_has_the_name_of_a_function(self) -> None:
        modules = {path.stem for path in Path(harness.__file__).parent.iterdir()}
        assert not modules & set(harness.__all__)

    def test_the_version_is_that_of_the_project(self, monkeypatch: pytest.MonkeyPatch) -> None:
        project = Path(harness.__file__).parents[1] / "pyproject.toml"
        version = tomllib.loads(project.read_text())["project"]["version"]
        assert harness.__version__ == version

        def not_installed(name: str) -> str:
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(importlib.metadata, "version", not_installed)
        assert harness.__version__ == version
        monkeypatch.setattr(provenance, "_PROJECT", Path("nowhere"))
        assert harness.__version__ == "unknown"
        assert provenance.commit()["reason"] == "version unknown, not run from a checkout"

    def test_torch_is_not_imported_before_there_is_something_to_run(self) -> None:
        code = """
            import sys, harness
            harness.__version__, harness.run_pairing, harness.run_matrix, harness.compare_results
            try:
                harness.run_pairing("digits", "nothing")
            except harness.errors.RequestError:
                pass
            assert "torch" not in sys.modules
        """
        subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_a_script_needs_no_guard_against_being_imported_again(tmp_path: Path) -> None:
    """The processes of a matrix do not import the script that has started it."""
    script = tmp_path / "script.py"
    script.write_text(
        "import harness\n"
        'ended = harness.run_matrix(tasks="digits", pruners="dense", profile="smoke", jobs=1,\n'
        '                           device="cpu")\n'
        'print(sorted(each["status"] for each in ended["runs"].values()))\n'
    )
    ended = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "['done']\n"), ended.stderr


@pytest.mark.slow
def test_nor_does_the_process_that_measures_a_network(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import harness\n"
        f'record = harness.run_pairing("points", "dense", plugins=["{POINTS}"], device="cpu")\n'
        'print(record["cost"]["step_ms"] > 0)\n'
    )
    ended = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        timeout=300,
    )
    assert (ended.returncode, ended.stdout) == (0, "True\n"), ended.stderr
