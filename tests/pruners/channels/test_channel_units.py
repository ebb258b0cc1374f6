from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.prunable import prunable_weights
from harness.units import ScoreError, UnreachableSparsity
from pruners.channels.units import Channels
from pruners.criteria import crop, snip
from pruners.distributions import isomorphic, per_layer, whole_network
from tests.helpers.cutting import perceptron, scoring_of


def forward(model: nn.Module) -> Tensor:
    outputs: Tensor = model(torch.ones(1, 2, dtype=torch.double))
    return outputs


def units_of(model: nn.Module) -> Channels:
    return Channels(model, forward)


SCORES = {"0": torch.tensor([4.0, 1.0, 2.0, 3.0]), "2": torch.tensor([9.0, 8.0, 7.0])}


def test_a_target_is_the_smallest_sparsity_that_is_not_below_it() -> None:
    units = units_of(perceptron())
    # Without its worst channel the first group leaves 2*3 + 3*3 + 3*2 = 21 weights of 26.
    kept = units.select(SCORES, 5 / 26, whole_network)
    assert kept["0"].tolist() == [True, False, True, True]
    assert kept["2"].all()
    # One weight more takes another channel: 2*2 + 2*3 + 3*2 = 16 are left.
    kept = units.select(SCORES, 5.1 / 26, whole_network)
    assert kept["0"].tolist() == [True, False, False, True]


def test_one_channel_of_each_group_remains() -> None:
    units = units_of(perceptron())
    # One channel each leaves 2 + 1 + 2 = 5 weights.
    kept = units.select(SCORES, 21 / 26, whole_network)
    assert [int(mask.sum()) for mask in kept.values()] == [1, 1]
    with pytest.raises(UnreachableSparsity) as refusal:
        units.select(SCORES, 0.9, whole_network)
    assert refusal.value.reachable == pytest.approx(21 / 26)


def test_a_share_for_each_layer_removes_the_same_ratio_of_every_group() -> None:
    kept = units_of(perceptron()).select(SCORES, 10 / 26, per_layer)
    assert [int(mask.sum()) for mask in kept.values()] == [3, 2]


class Isomorphic(nn.Module):
    """Two hidden layers that are computed and read alike, and a normalised one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 4), nn.Linear(4, 2)
        self.third, self.norm, self.last = nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Any:
        x = self.second(self.first(x).tanh()).tanh()
        return self.last(self.norm(self.third(x)))


def test_isomorphic_groups_are_ranked_together_and_lose_the_same_share_as_others() -> None:
    torch.manual_seed(0)
    units = units_of(Isomorphic().double().eval())
    scores = {
        "first": torch.tensor([1.0, 2.0, 6.0, 7.0]),
        "second": torch.tensor([3.0, 8.0]),
        "third": torch.tensor([400.0, 100.0, 300.0, 200.0]),  # another structure, another scale
    }
    # The shares of worse channels: 0, 1/6, 3/6 and 4/6 in the first group, 2/6 and 5/6 in the
    # second, and 3/4, 0, 2/4 and 1/4 in the third. Without those below 1/3, half of the 28 weights
    # are left; without that of 1/3 as well, 10.
    half, less = (units.select(scores, target, isomorphic) for target in (0.5, 0.6))
    assert {name: mask.tolist() for name, mask in half.items()} == {
        "first": [False, False, True, True],
        "second": [True, True],
        "third": [True, False, True, False],
    }
    assert less["second"].tolist() == [False, True]
    assert all(torch.equal(less[name], half[name]) for name in ("first", "third"))


def test_ranking_by_structure_is_that_of_layers_where_no_two_groups_are_alike() -> None:
    torch.manual_seed(0)
    layers = nn.Linear(2, 6), nn.BatchNorm1d(6), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)
    units = units_of(nn.Sequential(*layers).double().eval())
    scores = {"0": torch.rand(6), "2": torch.rand(5)}
    for target in (0.1, 0.5, 0.8):
        kept, expected = (units.select(scores, target, scope) for scope in (isomorphic, per_layer))
        assert all(torch.equal(kept[name], expected[name]) for name in expected)


def test_a_group_without_scores_stays_whole() -> None:
    # Without all but one channel of the second group, 2*4 + 4*1 + 1*2 = 14 weights are left.
    kept = units_of(perceptron()).select({"2": SCORES["2"]}, 12 / 26, whole_network)
    assert [int(mask.sum()) for mask in kept.values()] == [4, 1]
    with pytest.raises(UnreachableSparsity):
        units_of(perceptron()).select({"2": SCORES["2"]}, 13 / 26, whole_network)


def test_a_floor_is_a_share_of_the_dense_group() -> None:
    model: Any = perceptron()
    units = units_of(model)
    for target in (0.3, 0.53):
        kept = units.select(_ones(units), target, whole_network, floor=0.5)
        units.apply(model, None, [], kept)
    # Two of four and two of three channels stay: 2*2 + 2*2 + 2*2 = 12 weights.
    assert units.graph.sizes() == {"0": 2, "2": 2}
    with pytest.raises(UnreachableSparsity) as refusal:
        units.select(_ones(units), 0.6, whole_network, floor=0.5)
    assert refusal.value.reachable == pytest.approx(1 - 12 / 26)
    assert "floor=0.5 protects channels of every group" in str(refusal.value)


def test_scores_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(ScoreError, match="'2'"):
        units_of(perceptron()).select(
            {**SCORES, "2": torch.tensor([1.0, torch.nan, 0.0])}, 0.5, whole_network
        )


def test_target_networks_and_a_new_model_lose_the_same_channels() -> None:
    model: Any = perceptron()
    optimizer = torch.optim.Adam(model.parameters())
    target_network, fresh = copy.deepcopy(model), copy.deepcopy(model)
    units = units_of(model)

    units.apply(model, optimizer, [target_network], units.select(SCORES, 0.5, whole_network))
    units.apply(model, optimizer, [target_network], units.select(_ones(units), 0.7, whole_network))
    again = units_of(fresh)
    again.restore(fresh, units.state())

    assert 1 - _weights(model) / 26 >= 0.7
    assert torch.equal(forward(model), forward(target_network))
    assert torch.equal(forward(model), forward(fresh))
    assert units.nodes() == again.nodes() == 1 - sum(map(len, units.state().values())) / 7
    assert [p.shape for p in optimizer.param_groups[0]["params"]] == [
        p.shape for p in model.parameters()
    ]


def test_snip_on_gates_is_the_channels_own_gradient() -> None:
    """By the chain rule dL/dc is the sum of theta g over the weights that compute the channel."""
    model: Any = perceptron()
    inputs = torch.randn(5, 2, dtype=torch.double)
    loss = model(inputs).square().mean()
    weight, bias = model[0].weight, model[0].bias
    d_weight, d_bias = torch.autograd.grad(loss, [weight, bias])
    expected = ((weight * d_weight).sum(1) + bias * d_bias).abs()

    # The gate stands before the tanh, at the layer's own output.
    with units_of(model).as_variables(model) as gates:
        scores = snip(scoring_of(gates, [lambda: model(inputs).square().mean()]))

    torch.testing.assert_close(scores["0"], expected.detach())


def test_crop_on_gates_is_the_derivative_of_half_the_squared_gradient() -> None:
    model: Any = perceptron()
    inputs = torch.randn(5, 2, dtype=torch.double)
    with units_of(model).as_variables(model) as gates:
        scores = crop(scoring_of(gates, [lambda: model(inputs).square().mean()]))
        for name, channel in (("0", 1), ("2", 2)):
            flows = []
            for step in (1e-4, -1e-4):
                gates[name].data[channel] += step
                gradients = torch.autograd.grad(model(inputs).square().mean(), list(gates.values()))
                flows.append(sum(float(g.square().sum()) for g in gradients) / 2)
                gates[name].data[channel] -= step
            difference = abs(flows[0] - flows[1]) / 2e-4
            assert float(scores[name][channel]) == pytest.approx(difference, rel=1e-5)


def _ones(units: Channels) -> dict[str, Tensor]:
    return {name: mask.double() for name, mask in units.alive().items()}


def _weights(model: nn.Module) -> int:
    return sum(weight.numel() for weight in prunable_weights(model).values())
