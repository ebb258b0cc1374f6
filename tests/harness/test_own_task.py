"""Tasks made in Python of a network and datasets: run, identified and refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import harness
from harness.command_line import main
from harness.dataset_task import DatasetTask
from harness.errors import RequestError
from harness.network import build_task
from harness.registry import Registry
from harness.spec import Plan, plan

SCRIPT = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

import harness


def points(count, seed):
    generator = torch.Generator().manual_seed(seed)
    plane = torch.randn(count, 2, generator=generator)
    return TensorDataset(plane, (plane.prod(1) > 0).long())


def network():
    hidden = nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU()
    return nn.Sequential(*hidden, nn.Linear(16, 2))


quarters = harness.task_from(
    model=network, train=points(60, 0), test=points(30, 1), name="quarters", batch_size=20
)
"""

LINES = SCRIPT.replace(".long())", ".float())").replace(
    'name="quarters"',
    'name="lines", loss=lambda outputs, targets: (outputs[:, 0] - targets).square().mean()',
)

RUNS = """
if __name__ == "__main__":
    print(harness.run_pairing(quarters, "snip", sparsity=0.5, profile="smoke")["status"])
    print(harness.run_matrix(tasks=[quarters], pruners=["dense"], profile="smoke")["runs"])
    methods = ["snip", "random_u"]
    found = harness.advise(quarters, methods, sparsity=0.5, seeds=[0], profile="smoke")
    print(found.command)
"""


@pytest.fixture(autouse=True)
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quarters.py").write_text(SCRIPT)
    return tmp_path / "quarters.py"


def planned(task: str = "quarters", file: str = "quarters.py") -> Plan:
    return plan(Registry([Path(file)]), task, "dense", profile="smoke")


def build(task: str = "quarters", file: str = "quarters.py") -> DatasetTask:
    built = build_task(planned(task, file), torch.device("cpu"))
    assert isinstance(built, DatasetTask)
    return built


def test_the_command_line_runs_it(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--task", "quarters", "--pruner", "crop_s", "--sparsity", "0.3"]
    assert main(["run", *words, "--profile", "smoke", "--plugin", "quarters.py"]) == 0
    assert "datasets of quarters.py (54 train, 6 validation, 30 test" in capsys.readouterr().out


@pytest.mark.slow
def test_the_contract_is_kept() -> None:
    assert main(["check", "task", "quarters", "--plugin", "quarters.py"]) == 0


@pytest.mark.slow
def test_a_script_runs_it_here_and_in_other_processes(script: Path) -> None:
    script.write_text(SCRIPT + RUNS)
    ended = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True, cwd=script.parent
    )
    first, second, third = ended.stdout.splitlines()
    assert first == "done"
    assert "'status': 'done'" in second
    assert third.startswith("python -m harness run --task quarters --sparsity 0.5 --pruner ")
    assert third.endswith(f" --plugin {script}")


def test_a_script_that_always_runs_is_refused(script: Path) -> None:
    script.write_text(SCRIPT + RUNS.replace('__name__ == "__main__"', "True"))
    with pytest.raises(RequestError, match="put what starts them below if __name__"):
        planned()


def test_code_and_data_decide_its_identity(script: Path) -> None:
    before = planned()
    script.write_text(f"# A comment\n{SCRIPT}")
    assert planned().run_id == before.run_id
    script.write_text(SCRIPT.replace("ReLU", "GELU"))
    assert planned().task.version != before.task.version
    assert planned().data == before.data
    script.write_text(SCRIPT.replace("points(30, 1)", "points(30, 2)"))
    assert planned().data != before.data


def test_batches_have_every_training_pair_once() -> None:
    task = build()
    model = task.model()
    stream = task.stream(model, seed=0)
    batches = [stream.next(model) for _ in range(task.steps_per_epoch)]
    assert [len(targets) for _, targets in batches] == [20, 20, 14]
    assert len(torch.cat([inputs for inputs, _ in batches]).unique(dim=0)) == 54


def test_the_baseline_of_classes_is_the_most_frequent_one() -> None:
    task = build()
    frequent = task._targets(task._own.train, task._train.tolist()).mode().values
    expected = (task._targets(*task._parts["test"]) == frequent).double().mean()
    assert task.baseline() == pytest.approx(100 * float(expected))


def test_the_baseline_of_numbers_is_their_mean(script: Path) -> None:
    script.write_text(LINES)
    task = build("lines")
    mean = task._targets(task._own.train, task._train.tolist()).mean()
    expected = (task._targets(*task._parts["test"]) - mean).square().mean()
    assert task.baseline() == pytest.approx(float(expected), rel=1e-4)
    arguments = planned("lines").task.arguments
    assert (arguments["metric"], arguments["goal"]) == ("loss", "min")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("model=network", "model=network()", "model is a Sequential; it has to be a function"),
        ("model=network", "model=lambda: 3", "returns int, not a torch.nn.Module"),
        ("train=points(60, 0)", "train=points(5, 0)", "train has 5 pairs; it needs at least 10"),
        ("test=points(30, 1)", "test=[]", "test is empty"),
        ("test=points(30, 1)", "test=[1, 2, 3]", "an item of list is int, not a pair"),
        ("test=points(30, 1)", "test=iter([])", "test has no length"),
        ('name="quarters"', 'name="my task"', "is not made of letters, digits and underscores"),
    ],
)
def test_wrong_arguments_are_refused(script: Path, old: str, new: str, complaint: str) -> None:
    script.write_text(SCRIPT.replace(old, new))
    with pytest.raises(RequestError, match=complaint):
        build().model()


def test_what_is_made_without_a_file_is_refused() -> None:
    namespace: dict[str, object] = {"harness": harness}
    with pytest.raises(RequestError, match="it is not called in a file"):
        exec(SCRIPT, namespace)
