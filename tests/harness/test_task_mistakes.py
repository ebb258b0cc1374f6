"""A mistake in a task is reported in one line: where it is, and what would be right."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from harness.errors import RequestError, RunFailed
from harness.registry import Registry
from harness.spec import plan
from tests.helpers.workbench import Workbench

EVALUATE: dict[str, tuple[Callable[[dict[str, float]], Any], str]] = {
    "name": (
        lambda right: {"accurracy": 1.0},
        "returned no 'accuracy', which is the metric of its ta",
    ),
    "none": (lambda right: None, "returned a NoneType, not a dictionary of metrics"),
    "text": (lambda right: {"accuracy": "high"}, "returned a str for 'accuracy', not a number"),
    "nan": (lambda right: {"accuracy": math.nan}, "returned nan for 'accuracy' on the valid"),
}


@pytest.mark.parametrize("kind", EVALUATE)
def test_an_evaluation_without_the_metric_fails_the_run(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    spoil, complaint = EVALUATE[kind]
    evaluate = bench.points.evaluate

    def odd(task: Any, model: Any, split: Any) -> Any:
        return spoil(evaluate(task, model, split))

    monkeypatch.setattr(bench.points, "evaluate", odd)
    with pytest.raises(RunFailed) as refusal:
        bench.run("dense")
    (line,) = str(refusal.value).splitlines()
    assert line.startswith("odd (test_task_mistakes.py, line ")
    assert complaint in line


def test_a_metric_may_be_a_tensor_of_one_number(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        bench.points, "evaluate", lambda task, model, split: {"accuracy": torch.tensor(50)}
    )
    assert bench.run("dense")["quality"]["test"] == 50


def test_a_run_with_an_infinite_metric_has_diverged(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.points, "evaluate", lambda task, model, split: {"accuracy": math.inf})
    record = bench.run("dense")
    assert (record["status"], record["reason"]) == ("diverged", "the test accuracy is inf")


def test_a_run_whose_outputs_are_undefined_has_diverged(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = bench.points.outputs
    monkeypatch.setattr(
        bench.points, "outputs", lambda task, model, batch: math.nan * outputs(task, model, batch)
    )
    record = bench.run("dense")
    assert record["status"] == "diverged"
    assert record["quality"]["test"] is None


@pytest.mark.parametrize(
    ("loss", "complaint"),
    [
        (
            lambda task, model, batch: F.cross_entropy(model(batch[0]), batch[1], reduction="none"),
            "returned a tensor of shape (8,); a loss is a scalar: return its mean",
        ),
        (lambda task, model, batch: 1.0, "returned a float, not a tensor"),
        (lambda task, model, batch: torch.tensor(1.0), "depends on no trainable parameter"),
    ],
)
def test_a_loss_that_is_not_a_scalar_of_the_model_fails_the_run(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, loss: Any, complaint: str
) -> None:
    monkeypatch.setattr(bench.points, "loss", loss)
    with pytest.raises(RunFailed) as refusal:
        bench.run("dense")
    (line,) = str(refusal.value).splitlines()
    assert "test_task_mistakes.py, line " in line
    assert complaint in line


def test_an_error_inside_the_engine_names_the_line_of_the_plug_in_and_of_the_engine(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise KeyError("odd")

    monkeypatch.setattr("harness.training.trainer.update", fail)
    with pytest.raises(RunFailed) as refusal:
        bench.with_method("run.train()").run("tried")
    (line,) = str(refusal.value).splitlines()
    assert line.startswith("tried.py, line 8, which called harness/training/trainer.py, line ")
    assert line.endswith(": KeyError: 'odd' (more in failure.txt)")


DESCRIBE = {
    "raise FileNotFoundError(2, 'No such file', 'here')": (
        "the data of mine cannot be read: here: No such file"
    ),
    "return folder / None": "describe (mine.py, line 3), in line 4: TypeError: unsupported operand",
    "return 'my data'": "describe (mine.py, line 3) gave a str, not a harness.data.description.Da",
    "return DataDescription('own', 'mine', '0')": (
        "the source of the data 'own' is unknown; known: official, real, synthetic"
    ),
    "return DataDescription('real', 'mine', 0)": "name and sha256 of the data are strings, not 0",
}


@pytest.mark.parametrize("body", DESCRIBE)
def test_a_wrong_description_of_data_is_refused(tmp_path: Any, body: str) -> None:
    (tmp_path / "mine.py").write_text(
        "from harness.data.description import DataDescription\n"
        "from harness.registry import task\n"
        f"def describe(profile, settings, folder):\n    {body}\n"
        "@task('mine', title='M', metric='m', goal='max', data=':describe', settings={'epochs': 1,"
        "'batch_size': 1, 'optimiser': 'sgd', 'learning_rate': 1, 'weight_decay': 0, 'clip': 0},"
        "profiles={'smoke': {}})\nclass Mine: ...\n"
    )
    with pytest.raises(RequestError) as refusal:
        plan(Registry([tmp_path / "mine.py"]), "mine", "dense", profile="smoke")
    (line,) = str(refusal.value).splitlines()
    assert DESCRIBE[body] in line


@pytest.mark.parametrize(
    ("pruner", "name", "value", "complaint"),
    [
        ("crop_u", "floor", "1.5", "floor=1.5 is outside [0, 1]"),
        ("crop_u", "floor", "-0.1", "floor=-0.1 is outside [0, 1]"),
        ("slim_dense", "macs", "7", "macs=7 is outside (0, 1]"),
        ("slim_dense", "macs", "0", "macs=0 is outside (0, 1]"),
        ("crop_u", "shift", "-1", "shift=-1 is negative"),
    ],
)
def test_a_setting_outside_its_limits_is_refused(
    pruner: str, name: str, value: str, complaint: str
) -> None:
    with pytest.raises(RequestError) as refusal:
        plan(Registry(), "digits", pruner, overrides={name: value})
    assert complaint in str(refusal.value)
