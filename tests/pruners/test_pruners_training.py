"""Which parameters learn, penalties, and watched scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from harness.errors import Skip
from pruners.channels.gating import Gates
from pruners.channels.units import Channels
from pruners.training import (
    GroupSparsity,
    SmallestFilters,
    SquaredTaylor,
    l1,
    norm_scales,
    norms_and_head,
    taylor,
)
from tasks.digits.task import STRIDES
from tasks.images.networks import resnet18

IMAGES = torch.zeros(1, 1, 8, 8)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return resnet18(width=4, classes=10, channels=1, strides=STRIDES)


def test_in_a_tick_the_kernels_do_not_learn(model: nn.Module) -> None:
    learning = set(norms_and_head(model))
    others = {name for name, _ in model.named_parameters()} - learning
    assert {"1.weight", "1.bias", "13.weight", "13.bias"} <= learning
    assert all(model.get_parameter(name).dim() == 4 for name in others)
    assert len(others) == 20


def test_the_penalty_is_the_sum_of_magnitudes() -> None:
    model: Any = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2), nn.LayerNorm(2))
    model[0].weight.data = torch.tensor([1.0, -3.0])
    penalty = l1(norm_scales, strength=0.5)(model)
    assert penalty.item() == 0.5 * (1 + 3 + 1 + 1)
    penalty.backward()
    assert model[0].weight.grad is not None
    assert model[0].weight.grad.tolist() == [0.5, -0.5]
    assert model[1].weight.grad is None


def test_a_network_without_scales_is_skipped() -> None:
    with pytest.raises(Skip, match="no normalisation layers"):
        l1(norm_scales, 1.0)(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, affine=False)))


def test_taylor_adds_up_the_magnitudes_of_the_gates_gradients(model: nn.Module) -> None:
    """The expected score comes from a real gate; the watch inserts none."""
    model.double()
    units = Channels(model, lambda model: model(IMAGES.double()))
    watch = taylor()
    expected = torch.zeros(4, dtype=torch.double)
    for _ in range(2):
        model.zero_grad()
        with Gates(model, units.graph) as gates:
            model(torch.randn(3, 1, 8, 8, dtype=torch.double)).sin().sum().backward()
        gradient = gates.values["3.conv1"].grad
        assert gradient is not None
        expected += gradient.abs()
        watch.after_backward(model, units)
    torch.testing.assert_close(watch.scores()["3.conv1"], expected)
    assert watch.scores().keys() == units.graph.sizes().keys()


def two_layers() -> tuple[Any, Channels]:
    """Three channels between two layers; the filters are 1, -2 and 3, and are read by ones."""
    model: Any = nn.Sequential(nn.Linear(1, 3), nn.Linear(3, 1)).double()
    model[0].weight.data = torch.tensor([[1.0], [-2.0], [3.0]], dtype=torch.double)
    model[1].weight.data = torch.ones(1, 3, dtype=torch.double)
    return model, Channels(model, lambda model: model(torch.zeros(1, 1, dtype=torch.double)))


def test_sparse_learning_pulls_hardest_at_the_least_important_channel() -> None:
    model, units = two_layers()
    GroupSparsity(strength=0.1, contrast=4)(model, units).backward()
    # The mean squares of filter and reader are 1, 5/2 and 5; their roots are the importance.
    importance = np.sqrt([1, 2.5, 5])
    factors = 2 ** (4 * (importance[2] - importance) / (importance[2] - importance[0]))
    assert factors[[0, 2]].tolist() == [16, 1]
    expected = 0.1 * factors * np.array([1, -2, 3])
    np.testing.assert_allclose(model[0].weight.grad[:, 0], expected)
    np.testing.assert_allclose(model[1].weight.grad[0], 0.1 * factors)
    assert model[0].bias.grad is None


def test_sparse_learning_treats_equal_channels_alike() -> None:
    model, units = two_layers()
    model[0].weight.data.fill_(2)
    penalty = GroupSparsity(strength=0.1)(model, units)
    assert penalty.item() == pytest.approx(0.1 / 2 * 3 * (4 + 1))


def test_growing_regularisation_shrinks_the_smallest_filters_and_leaves_the_others() -> None:
    model, units = two_layers()
    penalty = SmallestFilters(share=0.7, strength=0.5)
    assert penalty(model, units).item() == 0.5 / 2 * (1 + 4), "two of three filters"
    optimizer = torch.optim.SGD(model.parameters(), 0.2)
    for _ in range(200):
        optimizer.zero_grad()
        penalty(model, units).backward()
        optimizer.step()
    assert model[0].weight[:, 0].tolist() == [pytest.approx(0, abs=1e-6)] * 2 + [3]
    assert model[1].weight.tolist() == [[1, 1, 1]]
    assert SmallestFilters(share=0.3, strength=1.0)(model, units).item() == 0, "rounded down"


def test_squared_taylor_is_the_mean_square_of_a_gates_gradient(model: nn.Module) -> None:
    """The expected score comes from a real gate; the watch inserts none."""
    model.double()
    units = Channels(model, lambda model: model(IMAGES.double()))
    watch = SquaredTaylor()
    squares = []
    for _ in range(3):
        model.zero_grad()
        with Gates(model, units.graph) as gates:
            model(torch.randn(3, 1, 8, 8, dtype=torch.double)).sin().sum().backward()
        gradient = gates.values["5.conv2"].grad
        assert gradient is not None
        squares.append(gradient.square())
        watch.after_backward(model, units)
    torch.testing.assert_close(watch.scores()["5.conv2"], torch.stack(squares).mean(0))
    assert watch.scores().keys() == units.graph.sizes().keys()


def test_squared_taylor_is_the_squared_change_of_a_linear_loss_without_a_channel() -> None:
    model, units = two_layers()
    inputs = torch.tensor([[2.0]], dtype=torch.double)
    model[0].bias.data.zero_()
    model(inputs).sum().backward()
    watch = SquaredTaylor()
    watch.after_backward(model, units)
    # The channels carry 2, -4 and 6, which the output adds up.
    assert watch.scores()["0"].tolist() == [4, 16, 36]


@pytest.mark.parametrize("kind", [taylor, SquaredTaylor])
def test_a_restored_watch_continues(kind: type[taylor | SquaredTaylor]) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    units = Channels(model, lambda model: model(torch.zeros(1, 2)))
    model(torch.randn(4, 2)).sum().backward()
    whole, first, second = kind(), kind(), kind()
    for watch in (whole, whole, first):
        watch.after_backward(model, units)
    second.restore(first.state())
    second.after_backward(model, units)
    assert torch.equal(second.scores()["0"], whole.scores()["0"])
    assert whole.scores()["0"].any()
