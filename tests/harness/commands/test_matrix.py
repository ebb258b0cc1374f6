"""``matrix``, from its arguments to its exit code, with each run in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.matrix.manifest import manifest_files
from harness.storage.store import Store
from tests.helpers.commands import Command
from tests.helpers.records import record
from tests.helpers.workbench import POINTS

WORDS = ("--tasks", "points", "--plugin", POINTS, "--profile", "smoke")

BROKEN = """
from harness.registry import pruner, task
raise ValueError("boom")

@pruner("broken", title="Broken")
def broken(run): ...

@task(
    "broken_task", title="B", metric="accuracy", goal="max", data=":describe",
    settings={
        "epochs": 1, "batch_size": 1, "optimiser": "sgd", "learning_rate": 0.1,
        "weight_decay": 0.0, "clip": 0.0,
    },
    profiles={"smoke": {}},
)
class BrokenTask: ...
"""

ENDING = """
import sys
from harness.registry import pruner

@pruner("exits", title="Exits")
def exits(run):
    sys.exit(3)

@pruner("interrupts", title="Interrupts")
def interrupts(run):
    raise KeyboardInterrupt

@pruner("trains", title="Trains")
def trains(run, *, share: float = 0.5):
    run.train()
"""


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    (tmp_path / "broken.py").write_text(BROKEN)
    (tmp_path / "ending.py").write_text(ENDING)
    return tmp_path


class TestPlugins:
    def test_a_pruner_that_does_not_import_fails(self, command: Command, plugins: Path) -> None:
        said = command("matrix", *WORDS, "--pruners", "dense,broken", "--plugin", "broken.py")
        assert said.code == 1
        assert said.out.startswith("command-line: 2 runs: 1 done, 1 failed\n")
        assert "broken.py, line 3: does not import: ValueError: boom" in said.out

    @pytest.mark.parametrize("tasks", ["broken_task", "points,broken_task"])
    def test_a_task_that_does_not_import_fails(
        self, command: Command, plugins: Path, tasks: str
    ) -> None:
        words = ("matrix", *WORDS[2:], "--tasks", tasks, "--pruners", "dense")
        said = command(*words, "--plugin", "broken.py")
        assert said.code == 1
        assert "\n  failed: dense on broken_task seed 0: task 'broken_task': broken.py" in said.out

    def test_a_method_that_exits_or_interrupts_fails_with_its_line(
        self, command: Command, plugins: Path
    ) -> None:
        names = "exits,interrupts,dense"
        said = command("matrix", *WORDS, "--pruners", names, "--plugin", "ending.py")
        assert said.code == 1
        assert "ending.py, line 7: calls sys.exit(3) (more in failure.txt)" in said.out
        assert "ending.py, line 11: KeyboardInterrupt (more in failure.txt)" in said.out
        assert "3 runs: 1 done, 2 failed" in said.out

    def test_a_plug_in_with_several_names_is_loaded_once(
        self, command: Command, plugins: Path
    ) -> None:
        (plugins / "link.py").symlink_to("ending.py")
        (plugins / "hard.py").hardlink_to(plugins / "ending.py")
        spelled = ("ending.py", "./ending.py", plugins / "ending.py", "link.py", "hard.py")
        words = [word for name in spelled for word in ("--plugin", name)]
        assert command("list", "pruners", *words).code == 0
        words += ["--pruners", "trains", "--sparsities", "0"]
        assert command("matrix", *WORDS, *words).code == 0

    def test_plug_ins_of_a_suite_are_relative_to_it(self, command: Command, plugins: Path) -> None:
        (plugins / "suites").mkdir()
        suite = plugins / "suites" / "mine.toml"
        suite.write_text(
            'profile = "smoke"\n'
            f'plugins = ["../ending.py", "../../{plugins.name}/ending.py", "{POINTS}"]\n'
            "[[runs]]\n"
            'tasks = ["points"]\npruners = ["trains"]\nsparsities = [0]\n'
            'seeds = "0-1"\nset = {epochs = 2}\n'
        )
        said = command("matrix", "--suite", suite)
        assert said.code == 0
        records = list(Store(Path("results")).records())
        assert [each["spec"]["seed"] for each in records] == [0, 1]
        assert {each["spec"]["overrides"]["epochs"] for each in records} == {2}
        assert records[0]["spec"]["plugins"] == ["ending.py", "points.py"]


class TestSettings:
    def test_a_run_without_the_setting_is_left_out_with_the_reason(
        self, command: Command, plugins: Path
    ) -> None:
        words = ("--pruners", "dense,trains", "--sparsities", "0", "--plugin", "ending.py")
        said = command("matrix", *WORDS, *words, "--set", "share=0.25")
        assert said.code == 0
        assert said.out.startswith("command-line: 1 run: 1 done\n")
        assert "\n  left out: dense on points seed 0: has no setting 'share'\n" in said.out

    def test_a_setting_that_no_run_has_is_refused(self, command: Command) -> None:
        said = command("matrix", *WORDS, "--pruners", "dense", "--set", "epoch=2")
        assert said.code == 2
        assert said.err == (
            "error: unknown setting 'epoch' for all of these runs; did you mean 'epochs'? "
            "(see: python -m harness list task NAME)\n"
        )

    @pytest.mark.parametrize(
        ("words", "complaint"),
        [
            ("--seeds 4-0", "--seeds 4-0: 4-0 ends before it begins"),
            ("--seeds 0-99999", "--seeds 0-99999: 0-99999 has more than 10,000 seeds"),
            ("--seeds 0-2,1", "--seeds 0-2,1: names a seed twice"),
            ("--seeds 0--2", "--seeds 0--2 is not a list of numbers, as in 0,1,2 or 0-4"),
            ("--seeds ,", "--seeds , is empty"),
            ("--seeds -1", "seed -1 is negative"),
            ("--sparsities 0.5,1.5", "sparsity 1.5 is outside [0, 1)"),
            ("--sparsities nan", "sparsity nan is outside [0, 1)"),
            ("--tasks ,", "the axis 'tasks' is empty"),
            ("--results=", "argument --results: the name is empty; . means the current folder"),
        ],
    )
    def test_an_impossible_request_is_refused_before_anything_runs(
        self, command: Command, tmp_path: Path, words: str, complaint: str
    ) -> None:
        said = command("matrix", *WORDS, "--pruners", "dense", *words.split())
        assert said.code == 2
        assert said.err.startswith(f"error: {complaint}")
        assert list(tmp_path.iterdir()) == []


def test_it_announces_each_start(command: Command) -> None:
    said = command("matrix", *WORDS, "--pruners", "dense", "--seeds", "0-1")
    first, second, *_ = said.err.splitlines()
    assert first == "command-line: 2 runs: 2 waiting"
    assert second.startswith("points-dense-0-seed0-")
    assert second.endswith(" starts")


def test_a_damaged_record_does_not_affect_the_other_runs(command: Command) -> None:
    words = ("matrix", *WORDS, "--pruners", "dense", "--seeds", "0-1")
    command(*words)
    damaged, intact = Store(Path("results")).run_ids()
    Path("results", damaged, "record.json").write_text("{")
    Path("results", intact, "record.json").unlink()
    said = command(*words, "--json")
    assert said.code == 1
    assert "\n  damaged: points-dense-0-seed0-" in said.out
    assert "is damaged; remove it to run again\n" in said.out
    states = json.loads(said.out.splitlines()[-1])["runs"]
    assert sorted(state["status"] for state in states.values()) == ["damaged", "done"]


def test_long_names_are_shortened_in_folder_names(command: Command, tmp_path: Path) -> None:
    name = "p" * 300
    Path("long.py").write_text(
        f"from harness.registry import pruner\n@pruner('{name}', title='P')\n"
        "def p(run): run.train()\n"
    )
    suite = Path(f"{'s' * 250}.toml")
    suite.write_text(f'[[runs]]\ntasks = ["points"]\npruners = ["{name}"]\nsparsities = [0]\n')
    words = ("--plugin", POINTS, "--plugin", "long.py", "--profile", "smoke")
    said = command("matrix", "--suite", suite, *words)
    assert said.code == 0, said.err
    (run_id,) = Store(Path("results")).run_ids()
    assert run_id.startswith("points-ppp")
    assert command("show", run_id).code == 0
    assert len(manifest_files(Path("results"))) == 1


@pytest.mark.parametrize("words", ["show {}", "compare {} {}", "status --results {}", "merge {}"])
def test_too_long_names_give_a_one_line_error(command: Command, words: str) -> None:
    Store(Path("results")).open_run("a")
    Store(Path("results")).save(record(run_id="a"))
    said = command(*words.format("x" * 300, "x" * 300).split())
    assert said.code == 2
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith("error: ")


def test_runs_of_the_folder_say_which_runs_take_longest(command: Command) -> None:
    for pruner, seconds in (("snip", 10.0), ("magnitude_u", 90.0)):
        run_id = f"points-{pruner}-0.8-seed7-{'0' * 12}"
        spec = {"spec__task": "points", "spec__pruner": pruner, "spec__profile": "smoke"}
        Store(Path("results")).open_run(run_id)
        Store(Path("results")).save(record(run_id=run_id, **spec, cost__train_seconds=seconds))
    said = command("matrix", *WORDS, "--pruners", "snip,magnitude_u,dense", "--seeds", "0,1")
    started = [line.split("-seed")[0] for line in said.err.splitlines() if "starts" in line]
    methods = ("dense-0", "magnitude_u-0.8", "snip-0.8")
    assert started == [f"points-{method}" for method in methods for _ in range(2)]
