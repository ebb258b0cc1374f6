"""A shrunk network computes and learns like the masked one, and a failed cut changes nothing."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.errors import RequestError, RunFailed
from pruners.channels.gating import verify_shrink
from pruners.channels.groups import compose
from pruners.channels.shrinking import shrink
from pruners.channels.tracing import trace_channels
from tests.helpers.cutting import (
    OPTIMIZERS,
    assert_same_trajectory,
    cut,
    parameters,
    random_keep,
)
from tests.helpers.networks import CASES, convolution, head

EVERYDAY = ["unet", "folded", "gathered",
            "resnet18", "resnext", "depthwise_multiplier", "transposed_grouped", "channel_shuffle",
            "fcrn_pixel_shuffle", "psmnet_assigned", "psmm_tied", "lstm",
            "attention", "group_norm", "layer_norm"]  # fmt: skip


def assert_equivalent(name: str, fraction: float) -> None:
    case = CASES[name]
    dense, graph, keep, smaller, _ = cut(case, fraction)
    inputs = case.inputs()
    for training in (True, False):
        dense.train(training)
        smaller.train(training)
        verify_shrink(dense, graph, keep, smaller, inputs, forward=case.forward, tolerance=1e-10)
    if any(size > 1 for size in graph.sizes().values()) and fraction < 1:
        assert parameters(smaller) < parameters(dense)
        with pytest.raises(RunFailed, match="differs from the masked one by"):
            verify_shrink(dense, graph, {}, smaller, inputs, forward=case.forward, tolerance=1e-10)


@pytest.mark.parametrize("name", EVERYDAY)
def test_shrunk_equals_masked(name: str) -> None:
    assert_equivalent(name, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [0, 0.2, 0.5, 1])
@pytest.mark.parametrize("name", CASES)
def test_shrunk_equals_masked_for_all_networks_and_fractions(name: str, fraction: float) -> None:
    assert_equivalent(name, fraction)


def test_keeping_everything_changes_no_bit() -> None:
    case = CASES["resnext"]
    model, _, _, smaller, _ = cut(case, 1)
    for name, tensor in model.state_dict().items():
        assert torch.equal(smaller.state_dict()[name], tensor)


@pytest.mark.parametrize("name", ["resnet18", "resnext", "vgg16_flattened", "lstm", "psmm_tied"])
def test_two_removals_equal_one(name: str) -> None:
    case = CASES[name]
    model, graph, first, once, once_graph = cut(case, 0.7)
    second = random_keep(once_graph, 0.6, seed=1)
    shrink(once, once_graph, second)
    at_once = copy.deepcopy(model)
    first = {group: torch.sort(torch.as_tensor(kept)).values for group, kept in first.items()}
    shrink(at_once, graph, dict(reversed(compose(first, second).items())))
    for key, tensor in at_once.state_dict().items():
        assert torch.equal(once.state_dict()[key], tensor)


@pytest.mark.parametrize("name", CASES)
def test_tracing_again_finds_the_same_groups(name: str) -> None:
    case = CASES[name]
    _, _, _, smaller, graph = cut(case, 0.5)
    again = trace_channels(smaller, case.inputs(), forward=case.forward)
    assert again.to_json() == graph.to_json()


def test_attributes_have_the_new_sizes() -> None:
    model: Any = nn.Sequential(
        convolution(3, 6), nn.Conv2d(6, 12, 3, groups=6), nn.PReLU(12), nn.GroupNorm(12, 12),
        nn.ConvTranspose2d(12, 4, 3), nn.GroupNorm(2, 4), *head(4),
    )  # fmt: skip
    graph = trace_channels(model, torch.zeros(2, 3, 8, 8))
    shrink(model, graph, {"0.0": [0, 5], "4": [1]})
    first, depthwise, slopes, norm, transposed, last_norm = (
        model[0][0], model[1], model[2], model[3], model[4], model[5]
    )  # fmt: skip
    assert (first.in_channels, first.out_channels, model[0][1].num_features) == (3, 2, 2)
    assert (depthwise.in_channels, depthwise.out_channels, depthwise.groups) == (2, 4, 2)
    assert (slopes.num_parameters, norm.num_channels, norm.num_groups) == (4, 4, 4)
    assert (transposed.in_channels, transposed.out_channels) == (4, 2)
    assert (last_norm.num_channels, last_norm.num_groups) == (2, 2)
    assert model[-1].in_features == 2
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 5)


def test_recurrent_layers_have_the_new_sizes() -> None:
    _, _, _, lstm, _ = cut(CASES["lstm_bidirectional"], 0.5)
    assert (lstm.recurrent.input_size, lstm.recurrent.hidden_size) == (2, 3)
    assert lstm.recurrent._flat_weights[0] is lstm.recurrent.weight_ih_l0
    _, _, _, cell, _ = cut(CASES["psmm_untied"], 0.5)
    assert (cell.lstm.input_size, cell.lstm.hidden_size) == (3, 3)


def test_attention_has_the_new_sizes() -> None:
    model: Any = nn.Sequential(
        nn.Linear(3, 8), SelfAttention(8, 2), nn.LayerNorm(8), nn.Linear(8, 2)
    )
    graph = trace_channels(model, torch.zeros(2, 5, 3))
    assert graph.sizes() == {"0": 4}
    shrink(model, graph, {"0": [0, 1, 3]})
    attention = model[1].attention
    assert (attention.embed_dim, attention.head_dim, attention.kdim) == (6, 3, 6)
    assert model[2].normalized_shape == (6,)
    assert model.eval()(torch.zeros(2, 5, 3)).shape == (2, 5, 2)
    assert attention.in_proj_weight.shape == (18, 6)


def test_heads_lose_the_same_features_of_queries_keys_and_values() -> None:
    """Attention is scaled by the width of its heads, so the test enlarges the smaller queries."""
    torch.manual_seed(0)
    model: Any = (
        nn.Sequential(nn.Linear(3, 8), SelfAttention(8, 2), nn.Linear(8, 2)).double().eval()
    )
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    graph = trace_channels(model, x)
    smaller = copy.deepcopy(model)
    shrink(smaller, graph, {"0": [0, 1, 3]})
    with torch.no_grad():
        smaller[1].attention.in_proj_weight[:6] *= (3 / 4) ** 0.5
        smaller[1].attention.in_proj_bias[:6] *= (3 / 4) ** 0.5
    assert verify_shrink(model, graph, {"0": [0, 1, 3]}, smaller, x, tolerance=1e-10) < 1e-10


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        return x + self.attention(x, x, x, need_weights=False)[0]


def test_ties_modes_and_frozen_parameters_stay() -> None:
    case = CASES["psmm_tied"]
    model = case.model()
    model.query.eval()
    model.query.weight.requires_grad_(False)
    graph = trace_channels(model, case.inputs(), forward=case.forward)
    shrink(model, graph, {"embedding": [1, 4]})
    assert model.vocabulary.weight is model.embedding.weight
    assert not model.query.training
    assert model.lstm.training
    assert not model.query.weight.requires_grad
    assert isinstance(model.sentinel, nn.Parameter)
    again = copy.deepcopy(model)
    assert again.vocabulary.weight is again.embedding.weight


def test_shared_layers_are_cut_once() -> None:
    case = CASES["psmnet_stacked"]
    model, _, _, smaller, _ = cut(case, 0.5)
    assert smaller.features.last[1].weight.shape == (2, 2, 1, 1)
    assert model.features.last[1].weight.shape == (4, 4, 1, 1)


def test_a_shrunk_network_can_be_built_again() -> None:
    case = CASES["psmm_tied"]
    _, graph, keep, smaller, _ = cut(case, 0.5)
    file = io.BytesIO()
    torch.save({"keep": keep, "state": smaller.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file)
    again = case.model(seed=5)
    shrink(again, graph, saved["keep"])
    again.load_state_dict(saved["state"])
    assert again.vocabulary.weight is again.embedding.weight
    inputs = case.inputs()
    assert torch.equal(case.run(again, inputs)[0], case.run(smaller, inputs)[0])


# Training continues


@pytest.mark.parametrize("name", ["resnext", "psmm_tied"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_follows_the_masked_network(name: str, optimizer: str) -> None:
    assert_same_trajectory(CASES[name], optimizer)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_follows_the_masked_network_for_all(name: str, optimizer: str) -> None:
    assert_same_trajectory(CASES[name], optimizer)


def test_the_optimizer_drops_the_old_parameters() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 6), nn.Linear(6, 2))
    groups: list[dict[str, Any]] = [
        {"params": [model[0].weight], "lr": 0.3},
        {"params": [model[0].bias, *model[1].parameters()]},
    ]
    optimizer = torch.optim.Adam(groups, lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    average = optimizer.state[model[1].weight]["exp_avg"].clone()
    gradient = model[1].weight.grad.clone()
    graph = trace_channels(model, torch.zeros(2, 3))
    shrink(model, graph, {"0": [4, 1]}, optimizer)
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == set(
        map(id, model.parameters())
    )
    assert set(map(id, optimizer.state)) == set(map(id, model.parameters()))
    assert [group["lr"] for group in optimizer.param_groups] == [0.3, 0.1]
    assert torch.equal(optimizer.state[model[1].weight]["exp_avg"], average[:, [1, 4]])
    assert optimizer.state[model[1].weight]["step"] == 1
    assert torch.equal(model[1].weight.grad, gradient[:, [1, 4]])


# Refusals that change nothing


@pytest.mark.parametrize(
    ("keep", "complaint"),
    [
        ({"1": [0]}, "no group '1'; known: 0"),
        ({"0": []}, r"group '0' \(0.weight\) would vanish"),
        ({"0": [0, 6]}, "has only the channels 0 to 5"),
        ({"0": [-1]}, "has only the channels 0 to 5"),
        ({"0": [2, 2]}, "names a channel twice"),
        ({"0": [True, False, True]}, "numbers of channels, and not torch.bool"),
        ({"0": [0.5, 1.0]}, "numbers of channels, and not torch.float32"),
    ],
)
def test_bad_requests_change_nothing(keep: Any, complaint: str) -> None:
    model: Any = nn.Sequential(nn.Linear(3, 6), nn.Linear(6, 2))
    graph = trace_channels(model, torch.zeros(2, 3))
    before = dict(model.named_parameters())
    with pytest.raises(RequestError, match=complaint):
        shrink(model, graph, keep)
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
    assert model[0].out_features == 6


def test_a_graph_of_another_model_is_refused() -> None:
    small, large = (nn.Sequential(nn.Linear(3, n), nn.Linear(n, 2)) for n in (4, 6))
    graph = trace_channels(large, torch.zeros(2, 3))
    with pytest.raises(
        RequestError, match=r"another model's: axis 0 of '0\.weight' has only 4 pos"
    ):
        shrink(small, graph, {"0": [0]})
    with pytest.raises(RequestError, match=r"another model's: this one has no '0\.weight'"):
        shrink(large[0], graph, {"0": [0]})


def test_optimizer_state_in_another_shape_is_refused() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 6), nn.Linear(6, 2))
    graph = trace_channels(model, torch.zeros(2, 3))
    optimizer = torch.optim.Adafactor(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    weight = model[1].weight
    with pytest.raises(RequestError, match=r"'row_var' for '0.weight' has shape \(6, 1\)"):
        shrink(model, graph, {"0": [0]}, optimizer)
    assert model[1].weight is weight
    assert weight in optimizer.state
