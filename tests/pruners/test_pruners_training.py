"""Which parameters learn, penalties, and watched scores."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from harness.errors import Skip
from pruners.channels.gating import Gates
from pruners.channels.units import Channels
from pruners.training import l1, norm_scales, norms_and_head, taylor
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


def test_a_restored_watch_continues() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    units = Channels(model, lambda model: model(torch.zeros(1, 2)))
    model(torch.randn(4, 2)).sum().backward()
    whole, first, second = taylor(), taylor(), taylor()
    for watch in (whole, whole, first):
        watch.after_backward(model, units)
    second.restore(first.state())
    second.after_backward(model, units)
    assert torch.equal(second.scores()["0"], whole.scores()["0"])
    assert whole.scores()["0"].any()
