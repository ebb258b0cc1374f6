"""Networks that learn from the outputs of a teacher (`harness.training.distillation`)."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import harness
from harness.contracts import StopAfter
from harness.errors import Interrupted, RequestError, RunFailed, Skip
from harness.storage.store import Store, outcome
from harness.task import Task
from harness.training.distillation import Teacher, divergence
from tests.helpers.attempts import attempts
from tests.helpers.workbench import CPU, POINTS, Workbench


class Mean:
    """A task that has a loss only: the mean of what the network returns."""

    device = CPU
    outputs_are: str | None = "values"
    calls = 1
    loss_and_outputs = Task.loss_and_outputs

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        total = torch.zeros(())
        for _ in range(self.calls):
            total = total + model(batch).mean()
        return total


def scaled(factor: float) -> nn.Module:
    """Return a network that multiplies a number by a factor."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, factor)
    return layer


def mean(**changes: Any) -> Any:
    task = Mean()
    for name, value in changes.items():
        setattr(task, name, value)
    return task


# The formulas


def test_the_divergence_of_two_distributions_is_softened_and_scaled() -> None:
    """With T = 2 the teacher gives (3/4, 1/4) and the student (1/2, 1/2)."""
    taught = torch.tensor([[2 * math.log(3), 0.0]])
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert float(divergence(torch.zeros(1, 2), taught, 2.0)) == pytest.approx(expected)


def test_the_divergence_is_the_mean_over_all_predictions() -> None:
    """Of two windows with three words each, one word is predicted in another way."""
    taught = torch.zeros(2, 3, 2)
    taught[1, 2] = torch.tensor([math.log(3), 0.0])
    one = divergence(torch.zeros(1, 2), taught[1, 2:], 1.0)
    assert float(divergence(torch.zeros(2, 3, 2), taught, 1.0)) == pytest.approx(float(one) / 6)


def test_log_probabilities_are_as_good_as_logits() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, taught = torch.randn(2, 5, 4, generator=generator)
    by_logits = divergence(logits, taught, 3.0)
    by_logs = divergence(logits.log_softmax(-1), taught.log_softmax(-1), 3.0)
    torch.testing.assert_close(by_logits, by_logs)


def test_at_a_high_temperature_logits_are_matched() -> None:
    """Equation 4 of the paper: the gradient becomes ``(z - v) / N`` for logits with mean 0."""
    z = torch.tensor([[1.0, -2.0, 1.0]], dtype=torch.double, requires_grad=True)
    v = torch.tensor([[0.5, 0.5, -1.0]], dtype=torch.double)
    (gradient,) = torch.autograd.grad(divergence(z, v, 1e4), z)
    torch.testing.assert_close(gradient, (z - v).detach() / 3, rtol=0, atol=1e-3)


def test_values_are_compared_by_their_squared_difference() -> None:
    """The student gives 2 and 6, the teacher 1 and 3: a loss of 4, a difference of (1 + 9) / 2."""
    teacher = Teacher(mean(), scaled(1.0), weight=0.25, temperature=4.0)
    loss = teacher.loss(scaled(2.0), torch.tensor([[1.0], [3.0]]))
    assert float(loss.detach()) == pytest.approx(0.75 * 4 + 0.25 * 5)


def test_only_the_student_learns() -> None:
    model, student = scaled(1.0), scaled(2.0)
    Teacher(mean(), model, weight=1.0, temperature=4.0).loss(student, torch.ones(1, 1)).backward()
    (weight,) = student.parameters()
    assert weight.grad is not None
    assert weight.grad.item() == pytest.approx(2 * (2 - 1))
    assert all(each.grad is None for each in model.parameters())


@pytest.mark.parametrize("calls", [0, 2])
def test_a_task_whose_loss_calls_the_model_otherwise_is_told_what_it_lacks(calls: int) -> None:
    with pytest.raises(RunFailed, match=r"Mean needs a loss_and_outputs\(model, batch\)"):
        mean(calls=calls).loss_and_outputs(scaled(1.0), torch.ones(1, 1))


def test_a_task_that_does_not_say_what_its_outputs_are_is_refused() -> None:
    with pytest.raises(Skip, match=r"^Mean cannot have a teacher: it does not say whether"):
        Teacher(mean(outputs_are=None), scaled(1.0), 0.5, 4.0)


# Runs


@pytest.fixture
def dense(bench: Workbench) -> Path:
    """The folder of a finished dense run."""
    return bench.folder / str(bench.run("dense")["run_id"])


def test_a_run_records_its_teacher_and_learns_otherwise(bench: Workbench, dense: Path) -> None:
    alone = bench.run("snip")
    taught = bench.run("snip", teacher=str(dense))
    assert taught["teacher"]["run"] == dense.name
    assert taught["spec"]["overrides"] == {"teacher": dense.name}
    assert taught["settings"]["temperature"] == 4
    assert alone["teacher"] is None
    assert taught["events"][-1]["epochs"][-1]["loss"] != alone["events"][-1]["epochs"][-1]["loss"]


def test_the_teacher_changes_neither_the_start_nor_the_scores(
    bench: Workbench, dense: Path
) -> None:
    alone, taught = bench.run("snip"), bench.run("snip", teacher=str(dense))
    hashes = [record["provenance"]["initial_weights_sha256"] for record in (alone, taught)]
    assert hashes[0] == hashes[1]
    assert alone["events"][0] == taught["events"][0], "criteria score by the task's own loss"


def test_a_teacher_never_changes(bench: Workbench, dense: Path) -> None:
    wanted = bench.plan("dense", teacher=str(dense))
    trainer = bench.begin("dense").trainer
    teacher = Teacher.of(wanted, trainer.task)
    assert teacher is not None
    before = copy.deepcopy(teacher.model.state_dict())
    for _ in range(3):
        teacher.loss(trainer.model, trainer.stream.next(trainer.model)).backward()
    after = teacher.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not teacher.model.training


def test_what_is_taught_with_is_part_of_the_identity(bench: Workbench, dense: Path) -> None:
    teacher = str(dense)
    identities = {
        bench.plan("snip").identity,
        bench.plan("snip", teacher=teacher).identity,
        bench.plan("snip", teacher=teacher, temperature="2").identity,
        bench.plan("snip", teacher=teacher, distill_weight="0.5").identity,
    }
    assert len(identities) == 4


def test_an_interrupted_run_with_a_teacher_ends_with_the_same_record(
    bench: Workbench, dense: Path
) -> None:
    whole = attempts(bench, "earlycrop_u", "whole", teacher=str(dense)).go()
    pieces = attempts(bench, "earlycrop_u", "pieces", teacher=str(dense))
    with pytest.raises(Interrupted):
        pieces.go(StopAfter(steps=9))
    assert outcome(pieces.go()) == outcome(whole)


def test_a_network_that_was_taught_needs_its_teacher_no_more(bench: Workbench, dense: Path) -> None:
    record = bench.run("snip", teacher=str(dense), temperature="2")
    for file in dense.iterdir():
        file.unlink()
    assert harness.load(bench.folder / record["run_id"], plugins=[POINTS])
    assert Store(bench.folder).record(record["run_id"]) == record


@pytest.mark.parametrize("outputs_are", ["logits", "values"])
def test_a_teacher_may_be_followed_in_another_precision(
    bench: Workbench, dense: Path, monkeypatch: pytest.MonkeyPatch, outputs_are: str
) -> None:
    monkeypatch.setattr(bench.points, "outputs_are", outputs_are)
    assert bench.run("snip", teacher=str(dense), precision="bfloat16")["status"] == "done"


@pytest.mark.parametrize("condition", ["temperature", "distill_weight"])
def test_a_condition_of_teaching_without_a_teacher_is_refused(
    bench: Workbench, condition: str
) -> None:
    overrides: dict[str, Any] = {condition: "0.5"}
    with pytest.raises(RequestError, match=f"^{condition}=0.5 needs a teacher: --set teacher=RUN$"):
        bench.plan("snip", **overrides)


def test_a_temperature_for_values_is_refused(
    bench: Workbench, dense: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.points, "outputs_are", "values")
    with pytest.raises(RequestError, match=r"^temperature=2 is for logits; the outputs of points"):
        bench.run("snip", teacher=str(dense), temperature="2")
