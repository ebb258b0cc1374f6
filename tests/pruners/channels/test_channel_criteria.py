"""Criteria of channels against hand computations and the identities between them."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harness.errors import RequestError, Skip
from harness.scoring import Scoring
from pruners.channels.criteria import (
    BeforeNormalisation,
    crop_mixed,
    filter_distance,
    filter_lamp,
    filter_magnitude,
    filter_norm,
    group_norm,
    norm_scale,
    relative_filter_magnitude,
)
from pruners.channels.gating import Gates
from pruners.channels.units import Channels
from pruners.criteria import snip
from tests.helpers.cutting import perceptron, scoring_of


class Sum(nn.Module):
    """The sum of the outputs of its parts."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([part(x) for part in self.parts]).sum(0)


def normalised() -> nn.Sequential:
    """Two groups: one behind a normalisation in evaluation mode, one without."""
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(3)
    layers = nn.Linear(2, 3), norm, nn.Tanh(), nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)
    model = nn.Sequential(*layers).double().eval()
    norm.weight.data = torch.tensor([0.5, -2.0, 1.0], dtype=torch.double)
    norm.bias.data = torch.tensor([0.1, 0.2, -0.3], dtype=torch.double)
    assert norm.running_var is not None
    norm.running_var.mul_(2)
    return model


def scoring_in(model: nn.Module, units: Channels | None = None) -> Scoring:
    torch.manual_seed(1)
    inputs = torch.randn(2, 5, 2, dtype=torch.double)
    units = units or Channels(model, lambda model: model(inputs[0]))
    gates = Gates(model, units.graph)

    def loss(batch: Tensor) -> Tensor:
        with gates:
            outputs: Tensor = model(batch)
        return outputs.sin().square().mean()

    losses = [partial(loss, batch) for batch in inputs]
    return scoring_of(gates.values, losses, units)


def test_filter_norms_add_up_over_coupled_layers() -> None:
    model: Any = nn.Sequential(Sum(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Linear(2, 1)).double()
    first, second = model[0].parts
    first.weight.data = torch.tensor([[1.0, -2.0], [0.0, 4.0]], dtype=torch.double)
    second.weight.data = torch.tensor([[3.0, 0.0], [-1.0, -1.0]], dtype=torch.double)
    scoring = scoring_in(model)
    (norms,) = filter_norm(scoring).values()
    assert norms.tolist() == [6, 6]
    second.weight.data *= 2
    (magnitudes,) = filter_magnitude(scoring).values()
    assert magnitudes.tolist() == [(1 + 2 + 6) / 4, (4 + 2 + 2) / 4]


def test_relative_magnitudes_do_not_depend_on_the_scale_of_a_layer() -> None:
    model: Any = perceptron()
    model[2].weight.data = torch.tensor(
        [[1.0, -1, 1, 1], [2, 2, -2, 2], [3, 3, 3, 3]], dtype=torch.double
    )
    assert filter_magnitude(scoring_in(model))["2"].tolist() == [1, 2, 3]
    assert relative_filter_magnitude(scoring_in(model))["2"].tolist() == [0.5, 1, 1.5]
    model[2].weight.data *= 0.25
    assert filter_magnitude(scoring_in(model))["2"].tolist() == [0.25, 0.5, 0.75]
    assert relative_filter_magnitude(scoring_in(model))["2"].tolist() == [0.5, 1, 1.5]


class Residual(nn.Module):
    """Convolution and normalisation, a residual convolution, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5)
        self.inner = nn.Conv2d(5, 5, 3, padding=1)
        self.last = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Any:
        x = self.norm(self.first(x))
        return self.last((x + self.inner(x.relu())).mean((2, 3)))


def residual() -> tuple[dict[str, Any], Scoring]:
    """Return the weights as arrays, and a scoring of the only group: all five channels."""
    torch.manual_seed(3)
    model = Residual().double().eval()
    nn.init.normal_(model.norm.weight)
    units = Channels(model, lambda model: model(torch.zeros(1, 2, 4, 4, dtype=torch.double)))
    weights = {name: each.detach().numpy() for name, each in model.named_parameters()}
    return weights, scoring_of({}, [], units)


def test_group_norms_agree_with_numpy_on_a_residual_block() -> None:
    weights, scoring = residual()
    importance = []
    for j in range(5):
        slices = [
            weights["first.weight"][j],
            weights["norm.weight"][j],
            weights["inner.weight"][j],
            weights["inner.weight"][:, j],
            weights["last.weight"][:, j],
        ]
        importance.append(np.mean([(each**2).sum() for each in slices]))
    (scores,) = group_norm(scoring).values()
    np.testing.assert_allclose(scores, importance / np.mean(importance))


def test_group_norms_read_what_reads_a_channel() -> None:
    model: Any = perceptron()
    model[0].weight.data = torch.tensor([[1.0, 1], [1, 1], [1, 1], [1, 1]], dtype=torch.double)
    model[2].weight.data = torch.tensor([[0.0, 1, 2, 1]] * 3, dtype=torch.double)
    # Half of 2 + 0, 2 + 3, 2 + 12, 2 + 3, over their mean, 13 / 4.
    assert group_norm(scoring_in(model))["0"].tolist() == pytest.approx(
        [each / 6.5 for each in (2, 5, 14, 5)]
    )
    model[0].weight.data *= 3
    model[2].weight.data *= 3
    assert group_norm(scoring_in(model))["0"].tolist() == pytest.approx(
        [each / 6.5 for each in (2, 5, 14, 5)]
    ), "groups of any scale are compared"


def test_lamp_is_the_share_in_all_filters_that_are_not_smaller() -> None:
    model: Any = perceptron()
    model[2].weight.data = torch.tensor([[2.0] * 4, [1] * 4, [3] * 4], dtype=torch.double)
    scores = filter_lamp(scoring_in(model))
    # The squared norms are 16, 4 and 36.
    assert scores["2"].tolist() == pytest.approx([16 / 52, 4 / 56, 1])
    model[2].weight.data *= 100
    torch.testing.assert_close(filter_lamp(scoring_in(model))["2"], scores["2"])


def test_lamp_gives_the_largest_filter_of_every_layer_the_highest_score() -> None:
    scores = filter_lamp(scoring_in(perceptron()))
    assert [float(each.max()) for each in scores.values()] == [1, 1]
    model: Any = perceptron()
    model[2].weight.data.fill_(0.5)
    # Of equal filters the earlier ones are kept: 1, 1/2 and 1/3 of those before.
    assert filter_lamp(scoring_in(model))["2"].tolist() == pytest.approx([1, 1 / 2, 1 / 3])
    model[2].weight.data.zero_()
    assert filter_lamp(scoring_in(model))["2"].tolist() == [0, 0, 0]


def test_lamp_agrees_with_numpy_on_a_residual_block() -> None:
    weights, scoring = residual()
    squares = [
        sum((weights[name][j] ** 2).sum() for name in ("first.weight", "inner.weight"))
        for j in range(5)
    ]
    expected = [u / sum(v for v in squares if v >= u) for u in squares]
    (scores,) = filter_lamp(scoring).values()
    np.testing.assert_allclose(scores, expected)


def test_distances_are_those_to_all_other_filters() -> None:
    model: Any = perceptron()
    model[2].weight.data = torch.tensor(
        [[0.0, 0, 0, 0], [3, 0, 0, 4], [0, 0, 0, 4]], dtype=torch.double
    )
    # The sides of the triangle are 5, 4 and 3: its right angle is nearest to the others.
    assert filter_distance(scoring_in(model))["2"].tolist() == [5 + 4, 5 + 3, 4 + 3]


def test_a_large_filter_can_be_replaced_and_a_small_one_need_not_be() -> None:
    model: Any = perceptron()
    model[2].weight.data = torch.tensor([[0.1] * 4, [5.0] * 4, [5.1] * 4], dtype=torch.double)
    distances = filter_distance(scoring_in(model))["2"]
    assert distances.argmin() == 1, "the geometric median of the three"
    assert filter_norm(scoring_in(model))["2"].argmin() == 0


def test_distances_agree_with_numpy_on_a_residual_block() -> None:
    weights, scoring = residual()
    expected = np.zeros(5)
    for name in ("first.weight", "inner.weight"):
        filters = weights[name].reshape(5, -1)
        expected += [np.linalg.norm(filters - each, axis=1).sum() for each in filters]
    (scores,) = filter_distance(scoring).values()
    np.testing.assert_allclose(scores, expected)


def test_norm_scales_score_the_groups_that_have_them() -> None:
    scores = norm_scale(scoring_in(normalised()))
    assert {name: score.tolist() for name, score in scores.items()} == {"0": [0.5, 2, 1]}


def test_a_network_without_normalisation_is_skipped() -> None:
    with pytest.raises(Skip, match="no normalisation layers with scales"):
        norm_scale(scoring_in(perceptron()))


def test_mixed_crop_is_squared_gradient_plus_curvature_of_the_weights() -> None:
    """``|g_Wj|^2 + sum theta_k (H g)_k + b_j (H g)_bj`` for the gates of a layer with bias."""
    model: Any = perceptron()
    scoring = scoring_in(model)
    weights = [model[place].weight for place in (0, 2, 4)]
    loss = torch.stack([loss() for loss in scoring.losses]).sum()
    gradients = torch.autograd.grad(loss, weights, create_graph=True)
    flow = torch.stack([(g * g.detach()).sum() for g in gradients]).sum()
    wanted = [*weights, model[0].bias, model[2].bias]
    curvature = torch.autograd.grad(flow, wanted)

    scores = crop_mixed(scoring)

    for name, layer in (("0", 0), ("2", 1)):
        linear = model[2 * layer]
        expected = gradients[layer].square().sum(1) + (linear.weight * curvature[layer]).sum(1)
        expected = expected + linear.bias * curvature[3 + layer]
        torch.testing.assert_close(scores[name], expected.detach().abs())


def test_before_normalisation_snip_is_the_filters_own_saliency() -> None:
    model: Any = normalised()
    scoring = scoring_in(model)
    before, after = BeforeNormalisation(snip)(scoring)["0"], snip(scoring)["0"]
    loss = torch.stack([loss() for loss in scoring.losses]).sum()
    layer = model[0]
    d_weight, d_bias = torch.autograd.grad(loss, [layer.weight, layer.bias])
    expected = ((layer.weight * d_weight).sum(1) + layer.bias * d_bias).abs()
    torch.testing.assert_close(before, expected.detach())
    assert not torch.allclose(before, after), "the shift of the norm is not gated"


def test_gates_before_normalisation_ignore_the_condition_of_batch_statistics() -> None:
    model: Any = normalised()
    scoring = scoring_in(model)
    expected = BeforeNormalisation(snip)(scoring)["0"]
    model.train()
    torch.testing.assert_close(BeforeNormalisation(snip)(scoring)["0"], expected)
    assert model.training


def test_criteria_of_channels_refuse_weights() -> None:
    scoring = scoring_in(perceptron())
    object.__setattr__(scoring, "units", None)
    with pytest.raises(RequestError, match="scores channels"):
        filter_norm(scoring)
