"""The training loop, step by step."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from harness.errors import Diverged
from harness.network import build_task
from harness.pruning.event import digest
from harness.settings import Recipe
from harness.task import Batch, Task
from harness.training.evaluation import evaluate
from harness.training.optimization import build_optimiser
from harness.training.trainer import Trainer, update
from pruners.distributions import whole_network
from pruners.weights import Weights
from tests.helpers.workbench import CPU, Workbench


def trainer(bench: Workbench, seed: int = 0, **settings: Any) -> Trainer:
    plan = bench.plan("dense", seed=seed, **settings)
    return Trainer(build_task(plan, CPU), seed, plan.conditions["schedule"])


def steps(trainer: Trainer, count: int) -> str:
    """Take some steps and return a hash of the network."""
    for _ in range(count):
        trainer.step()
    return digest(trainer.model.state_dict())


def test_the_weights_are_a_function_of_the_seed_alone(bench: Workbench) -> None:
    torch.manual_seed(1)
    first = steps(trainer(bench), 0)
    torch.manual_seed(2)
    assert steps(trainer(bench), 0) == first
    assert steps(trainer(bench, seed=1), 0) != first


def test_a_step_is_a_function_of_seed_and_position_whatever_else_draws_random_numbers(
    bench: Workbench,
) -> None:
    alone, disturbed = trainer(bench), trainer(bench)
    for _ in range(6):
        alone.step()
        torch.rand(7)
        disturbed.step()
    assert steps(alone, 0) == steps(disturbed, 0)


def test_every_step_has_a_dropout_mask_of_its_own(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[float] = []
    loss = bench.points.loss

    def drawing(task: Task, model: nn.Module, batch: Batch) -> Tensor:
        drawn.append(float(torch.rand(())))
        return loss(task, model, batch)

    monkeypatch.setattr(bench.points, "loss", drawing)
    steps(trainer(bench), 10)
    steps(trainer(bench, seed=1), 10)
    assert len(set(drawn)) == 20


def test_both_clocks_count_steps(bench: Workbench) -> None:
    training = trainer(bench)
    steps(training, 3)
    snapshot = copy.deepcopy(training.snapshot())
    steps(training, 2)
    assert (training.position, training.spent) == (5, 5)
    training.rewind(snapshot)
    assert (training.position, training.spent) == (3, 5)


@pytest.mark.parametrize(
    ("schedule", "optimiser"), [("equal", "sgd"), ("onecycle", "sgd"), ("onecycle", "adam")]
)
def test_each_step_uses_the_rate_of_its_position(
    bench: Workbench, schedule: str, optimiser: str
) -> None:
    training = trainer(bench, schedule=schedule, optimiser=optimiser)
    for position in range(training.end):
        training.step()
        rate = training.schedule.at(position, None)
        group = training.optimiser.param_groups[0]
        assert group["lr"] == rate.learning_rate
        if rate.momentum is not None:
            assert rate.momentum == (
                group["betas"][0] if optimiser == "adam" else group["momentum"]
            )


def test_a_step_trains_in_training_mode(bench: Workbench) -> None:
    training = trainer(bench)
    training.model.eval()
    training.step()
    assert training.model.training
    assert training.model.get_buffer("1.num_batches_tracked") == 1


def test_the_mean_loss_covers_the_steps_since_it_was_last_asked_for(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([1.0, 2.0, 6.0, 10.0])
    monkeypatch.setattr("harness.training.trainer.update", lambda *_: torch.tensor(next(losses)))
    training = trainer(bench)
    steps(training, 3)
    assert training.mean_loss() == pytest.approx(3)
    steps(training, 1)
    assert training.mean_loss() == pytest.approx(10)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_one_infinite_or_undefined_loss_means_divergence(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    losses = iter([1.0, bad, 1.0])
    monkeypatch.setattr("harness.training.trainer.update", lambda *_: torch.tensor(next(losses)))
    training = trainer(bench)
    steps(training, 3)
    with pytest.raises(Diverged, match=rf"the training loss became {bad} before step 3"):
        training.mean_loss()


def test_undefined_weights_after_the_last_step_mean_divergence(bench: Workbench) -> None:
    training = trainer(bench)
    steps(training, 3)
    training.model.get_parameter("0.bias").data[0] = torch.nan
    with pytest.raises(Diverged, match="the weights were not finite after step 3"):
        training.mean_loss()


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
def test_a_restored_state_continues_to_the_last_bit(bench: Workbench, optimiser: str) -> None:
    first, second = (trainer(bench, optimiser=optimiser) for _ in range(2))
    steps(first, 3)
    units = first.units["weights"] = Weights(first.model)
    scores = {name: w.detach().abs() for name, w in units.variables(first.model).items()}
    kept = units.select(scores, 0.5, whole_network)
    units.apply(first.model, first.optimiser, first.stream.companions, kept)
    first.anchor = first.position
    steps(first, 1)
    second.restore(copy.deepcopy(first.state()), lambda name: Weights)
    assert steps(second, 6) == steps(first, 6)
    assert second.mean_loss() == first.mean_loss()
    assert (second.position, second.spent, second.anchor) == (10, 10, 3)


# The arithmetic of one step


class Line(nn.Module):
    """``f(x) = w . x`` with weights (3, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1, bias=False)
        self.layer.weight.data = torch.tensor([[3.0, 4.0]])


class Plain:
    """A task that has only what a training step needs, a loss: here ``w . x`` itself."""

    device = CPU

    def loss(self, model: Line, batch: Tensor) -> Tensor:
        loss: Tensor = model.layer(batch).sum()
        return loss


PLAIN = cast(Task, Plain())


def after_one_step(clip: float, **arguments: Any) -> tuple[list[float], float]:
    """Return the change of the weights in a step of SGD on the gradient (6, 8), and the loss."""
    model = Line()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    loss = update(PLAIN, model, optimiser, (), torch.tensor([[6.0, 8.0]]), clip, **arguments)
    assert not loss.requires_grad
    return (model.layer.weight.detach() - torch.tensor([3.0, 4.0])).flatten().tolist(), float(loss)


def test_a_step_goes_down_the_gradient() -> None:
    assert after_one_step(clip=0) == ([-3, -4], 50)


def test_a_long_gradient_is_shortened_to_the_clip() -> None:
    change, _ = after_one_step(clip=5)
    assert change == pytest.approx([-1.5, -2])


def test_a_short_gradient_is_not_clipped() -> None:
    change, _ = after_one_step(clip=20)
    assert change == pytest.approx([-3, -4])


def test_the_penalty_moves_the_weights_and_is_no_part_of_the_loss() -> None:
    change, loss = after_one_step(clip=0, penalty=lambda model: 2 * model.layer.weight.sum())
    assert change == [-4, -5]
    assert loss == 50


def test_watchers_see_the_gradient_before_clipping() -> None:
    seen: list[list[float]] = []
    after_one_step(clip=5, after_backward=lambda m: seen.append(m.layer.weight.grad[0].tolist()))
    assert seen == [[6, 8]]


def test_a_step_does_not_add_to_the_gradients_of_the_step_before() -> None:
    model = Line()
    optimiser = torch.optim.SGD(model.parameters(), lr=0)
    for _ in range(2):
        update(PLAIN, model, optimiser, (), torch.tensor([[6.0, 8.0]]), clip=0)
    assert model.layer.weight.grad is not None
    assert model.layer.weight.grad.tolist() == [[6, 8]]


def test_removed_weights_stay_zero_and_do_not_enter_the_clipped_norm() -> None:
    model = Line()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9, weight_decay=0.1)
    units = Weights(model)
    units.apply(model, optimiser, [], {"layer.weight": torch.tensor([[True, False]])})
    update(PLAIN, model, optimiser, (units,), torch.tensor([[6.0, 8.0]]), clip=3)
    # The norm of (6, 0) is 6, clipped to 3; a weight decay of 0.3 is added.
    assert model.layer.weight[0].tolist() == pytest.approx([3 - 0.5 * (3 + 0.3), 0])


class AddsOne(torch.optim.SGD):
    """Adds one to every weight, whatever its gradient."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data += 1


def test_removed_weights_stay_zero_whatever_the_optimiser_does() -> None:
    model = Line()
    optimiser, units = AddsOne(model.parameters(), lr=0.5), Weights(model)
    units.apply(model, optimiser, [], {"layer.weight": torch.tensor([[True, False]])})
    update(PLAIN, model, optimiser, (units,), torch.tensor([[6.0, 8.0]]), clip=0)
    assert model.layer.weight.tolist() == [[4, 0]]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)],
)
def test_the_recipe_names_the_optimiser(name: str, kind: type) -> None:
    settings = {"optimiser": name, "learning_rate": 0.3, "weight_decay": 0.2}
    recipe = Recipe.of({**settings, "epochs": 1, "batch_size": 1, "clip": 0.0})
    optimiser = build_optimiser([nn.Parameter(torch.zeros(1))], recipe)
    assert type(optimiser) is kind
    assert optimiser.defaults["lr"] == 0.3
    assert optimiser.defaults["weight_decay"] == 0.2
    assert optimiser.defaults.get("momentum", 0.9) == 0.9


# Evaluation


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_uses_evaluation_mode_and_restores_the_mode(
    bench: Workbench, training: bool
) -> None:
    trained = trainer(bench)
    trained.model.train(training)
    before = steps(trained, 0)
    results = [evaluate(trained.task, trained.model, "validation") for _ in range(2)]
    assert results[0] == results[1], "dropout is off"
    assert steps(trained, 0) == before, "the running statistics stay"
    assert trained.model.training is training


def test_evaluation_between_steps_changes_nothing(bench: Workbench) -> None:
    plain, evaluated = trainer(bench), trainer(bench)
    for _ in range(6):
        plain.step()
        evaluated.step()
        evaluate(evaluated.task, evaluated.model, "validation")
    assert steps(plain, 0) == steps(evaluated, 0)
