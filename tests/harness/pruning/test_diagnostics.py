"""Gradient flow and the tangent kernel, on models simple enough for pencil and paper."""

from __future__ import annotations

import contextlib
import json
from functools import partial
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from harness.pruning.diagnostics import PROBES, TangentKernel, gradient_flow
from harness.scoring import Scoring
from harness.seeds import derive
from harness.task import Task
from pruners import criteria
from pruners.weights import Weights
from tests.helpers.workbench import Begun, Workbench


def scoring_of(weight: Tensor, alive: Tensor, points: Tensor, targets: list[float]) -> Scoring:
    """Return the scoring of ``w . x`` by half its squared error, with one point in each batch."""

    def loss(point: Tensor, target: float) -> Tensor:
        return 0.5 * (weight @ point - target) ** 2

    return Scoring(
        variables={"w": weight},
        alive={"w": alive},
        losses=[partial(loss, x, y) for x, y in zip(points, targets, strict=True)],
        without_signs=lambda: contextlib.nullcontext(lambda: weight.sum()),
        generator=torch.Generator(),
    )


def test_gradient_flow_is_the_squared_norm_of_the_mean_gradient() -> None:
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    points = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    # Errors 1 - 3 = -2 and 3 - 7 = -4: gradients (-2, 0) and (-4, -4), their mean (-3, -2).
    whole = scoring_of(weight, torch.tensor([True, True]), points, [3, 7])
    assert gradient_flow(whole) == pytest.approx(9 + 4)
    pruned = scoring_of(weight, torch.tensor([True, False]), points, [3, 7])
    assert gradient_flow(pruned) == pytest.approx(9)


def test_gradient_flow_is_zero_at_the_minimum_of_a_quadratic() -> None:
    weight = torch.tensor([3.0, 4.0], requires_grad=True)
    points = torch.eye(2)
    assert gradient_flow(scoring_of(weight, torch.tensor([True, True]), points, [3, 4])) == 0


class Outputs:
    """The part of a task that the tangent kernel needs."""

    def outputs(self, model: nn.Module, batch: Tensor) -> Tensor:
        outputs: Tensor = model(batch)
        return outputs


def kernel_on(points: Tensor, seed: int = 0, batch_statistics: bool = True) -> TangentKernel:
    return TangentKernel(cast(Task, Outputs()), points, seed, batch_statistics)


POINTS = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


def test_the_kernel_of_a_linear_model_is_the_gram_matrix_of_its_inputs() -> None:
    # f_i = r . W x_i / sqrt(2) for a direction r: df_i/dW = r x_i / sqrt(2).
    direction = torch.randn(2, generator=torch.Generator().manual_seed(derive(0, "probe")))
    by_hand = direction.square().sum() / 2 * POINTS @ POINTS.T
    kernel = kernel_on(POINTS).kernel(nn.Linear(3, 2, bias=False), {})
    assert kernel.dtype == torch.float64
    torch.testing.assert_close(kernel, by_hand.double())


def test_a_bias_adds_a_constant_to_the_kernel() -> None:
    plain, with_bias = (
        kernel_on(POINTS).kernel(nn.Linear(3, 2, bias=b), {}) for b in (False, True)
    )
    added = with_bias - plain
    torch.testing.assert_close(added, torch.full_like(added, float(added[0, 0])))
    assert added[0, 0] > 0


def test_removed_weights_do_not_enter_the_kernel() -> None:
    # Without the weights of the first input, the kernel is that of the other inputs.
    model, masks = nn.Linear(3, 2, bias=False), {"weight": torch.ones(2, 3) > 0}
    masks["weight"][:, 0] = False
    kernel = kernel_on(POINTS).kernel(model, masks)
    others = kernel_on(POINTS[:, 1:]).kernel(nn.Linear(2, 2, bias=False), {})
    torch.testing.assert_close(kernel, others)


def test_the_probe_consists_of_the_first_samples_of_the_batch() -> None:
    points = torch.randn(PROBES + 10, 3)
    model = nn.Linear(3, 2)
    kernel = kernel_on(points).kernel(model, {})
    assert kernel.shape == (PROBES, PROBES)
    torch.testing.assert_close(kernel, kernel_on(points[:PROBES]).kernel(model, {}))


def test_the_direction_depends_on_the_seed_alone() -> None:
    model = nn.Linear(3, 2)
    first, again, other = (kernel_on(POINTS, seed).kernel(model, {}) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


class Products(nn.Module):
    """``f(x) = u_1 v_1 x_1 + u_2 v_2 x_2``, so that ``K = X diag(u^2 + v^2) X^T``."""

    def __init__(self, u: list[float]) -> None:
        super().__init__()
        self.u = nn.Parameter(torch.tensor(u))
        self.v = nn.Parameter(torch.zeros(2))

    def forward(self, points: Tensor) -> Tensor:
        outputs: Tensor = points @ (self.u * self.v)
        return outputs.unsqueeze(1)


# With X the identity the kernel is diag(u^2) times the square of the direction of the one output.
SCALE = float(torch.randn(1, generator=torch.Generator().manual_seed(derive(0, "probe"))) ** 2)


def moving(*trajectory: list[float]) -> list[dict[str, Any]]:
    """Return the readings after each epoch, given ``u`` at the start and after each epoch."""
    kernel = kernel_on(torch.eye(2))
    start, *epochs = trajectory
    kernel.start(Products(start), {})
    return [kernel.after_epoch(Products(u), {}) for u in epochs]


@pytest.mark.parametrize(
    ("now", "change", "alignment"),
    [
        ([1.0, 0.0], 0, 1),  # the same
        ([2.0, 0.0], 3, 1),  # four times as large
        ([0.5, 0.0], 0.75, 1),  # a quarter
        ([0.0, 1.0], 2**0.5, 0),  # of other samples entirely
        ([1.0, 1.0], 1, 0.5**0.5),
    ],
)
def test_change_and_alignment_are_relative_to_the_initial_kernel(
    now: list[float], change: float, alignment: float
) -> None:
    (reading,) = moving([1.0, 0.0], now)
    assert reading["change"] == pytest.approx(change)
    assert reading["alignment"] == pytest.approx(alignment)


def test_drift_is_the_distance_between_kernels_and_not_a_difference_of_distances() -> None:
    # The kernels are diag(4, 0), diag(1, 0), diag(4, 3), diag(4, -) with sqrt(3) for u_2.
    first, second = moving([2.0, 0.0], [1.0, 0.0], [2.0, 3**0.5])
    assert first["drift"] == 1
    assert first["epoch_change"] == pytest.approx(3 / 4)
    # Both are 3 away from the initial kernel, and sqrt(9 + 9) from each other.
    assert first["change"] == pytest.approx(3 / 4)
    assert second["change"] == pytest.approx(3 / 4)
    assert second["drift"] == pytest.approx(18**0.5 / 3)
    assert second["epoch_change"] == pytest.approx(18**0.5 / 1)


def test_a_kernel_is_recorded_as_its_matrix() -> None:
    (reading,) = moving([1.0, 0.0], [2.0, 1.0])
    assert torch.tensor(reading["matrix"]).numpy() == diagonal(4, 1)


def diagonal(first: float, second: float) -> Any:
    """Return a kernel as the record contains it."""
    return pytest.approx(SCALE * torch.diag(torch.tensor([first, second])).double().numpy())


def test_pruning_is_compared_with_the_kernel_before_it() -> None:
    kernel = kernel_on(torch.eye(2))
    kernel.start(Products([1.0, 0.0]), {})
    kernel.after_epoch(Products([2.0, 1.0]), {})
    pruned = kernel.after_pruning(Products([2.0, 0.0]), {})
    # From diag(4, 1) to diag(4, 0).
    assert pruned["change"] == pytest.approx(1 / 17**0.5)
    assert pruned["alignment"] == pytest.approx(16 / (4 * 17**0.5))
    assert torch.tensor(pruned["before"]).numpy() == diagonal(4, 1)
    assert torch.tensor(pruned["after"]).numpy() == diagonal(4, 0)
    # The epoch after it is compared with the pruned kernel.
    assert kernel.after_epoch(Products([2.0, 0.0]), {})["epoch_change"] == 0


def test_a_kernel_of_zero_has_neither_direction_nor_relative_change() -> None:
    (reading,) = moving([0.0, 0.0], [0.0, 0.0])
    assert reading["change"] is None
    assert reading["alignment"] is None
    assert reading["drift"] is None


def test_a_restored_kernel_continues_with_the_same_comparisons() -> None:
    kernel, restored = kernel_on(torch.eye(2)), kernel_on(torch.eye(2))
    kernel.start(Products([1.0, 0.0]), {})
    kernel.after_epoch(Products([2.0, 0.0]), {})
    restored.restore(kernel.state())
    later = Products([2.0, 1.0])
    assert restored.after_epoch(later, {}) == kernel.after_epoch(later, {})


@pytest.mark.parametrize("batch_statistics", [True, False])
def test_measuring_changes_nothing_and_switches_dropout_off(batch_statistics: bool) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kernel = kernel_on(POINTS, batch_statistics=batch_statistics)
    assert torch.equal(kernel.kernel(model, {}), kernel.kernel(model, {}))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training


def events_of(begun: Begun) -> list[dict[str, Any]]:
    return [entry.event for entry in begun.journal.entries]


def test_with_kernel_on_every_evaluation_and_every_prune_has_a_kernel(bench: Workbench) -> None:
    begun = bench.begin(kernel="on")
    begun.run.train(epochs=2)
    begun.run.prune(Weights, criteria.snip, 0.8)
    begun.run.train()
    before, prune, after = events_of(begun)
    epochs = [*before["epochs"], *after["epochs"]]
    assert len(epochs) == 4
    kernels = [epoch["kernel"] for epoch in epochs]
    assert all(
        kernel.keys() == {"change", "alignment", "epoch_change", "drift", "matrix"}
        for kernel in kernels
    )
    assert [kernel["drift"] == 1 for kernel in kernels] == [True, False, False, False]
    assert all(-1 <= kernel["alignment"] <= 1 for kernel in kernels)
    # Nothing happened between the second evaluation and the pruning.
    assert prune["kernel"]["before"] == kernels[1]["matrix"]
    assert prune["kernel"]["after"] != prune["kernel"]["before"]


def test_a_pruning_between_two_epochs_is_compared_with_the_kernel_just_before_it(
    bench: Workbench,
) -> None:
    begun = bench.begin(kernel="on")
    begun.run.train(steps=begun.run.steps_per_epoch + 3)
    begun.run.prune(Weights, criteria.snip, 0.8)
    train, prune = events_of(begun)
    assert prune["kernel"]["before"] != train["epochs"][0]["kernel"]["matrix"]


def test_with_kernel_off_no_kernel_is_measured(bench: Workbench) -> None:
    begun = bench.begin()
    begun.run.train(epochs=1)
    begun.run.prune(Weights, criteria.snip, 0.8)
    assert "kernel" not in json.dumps(events_of(begun))


def test_every_prune_has_the_gradient_flow_on_the_scoring_batches_before_and_after(
    bench: Workbench,
) -> None:
    begun = bench.begin()
    flows = []
    for target in (0.5, 0.8):
        begun.run.prune(Weights, criteria.snip, target)
        flows.append(events_of(begun)[-1]["gradient_flow"])
    assert flows[0]["before"] > 0
    assert flows[1]["before"] == flows[0]["after"] != flows[0]["before"]
    assert flows[0]["before"] == pytest.approx(flow_by_hand(bench.begin()), rel=1e-5)


def flow_by_hand(begun: Begun) -> float:
    """Return the squared norm of the mean gradient of the prunable weights, without dropout."""
    task, model = begun.trainer.task, begun.trainer.model
    cast(nn.Dropout, model.get_submodule("3")).p = 0.0
    for batch in task.scoring_batches(0):
        (task.loss(model, batch) / 5).backward()
    gradients = [model.get_parameter(name).grad for name in ("0.weight", "4.weight")]
    return sum(float(gradient.square().sum()) for gradient in gradients if gradient is not None)
