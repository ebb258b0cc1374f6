"""A gate of one changes nothing, a gate of zero removes, and gradients equal differences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from pruners.channels.gating import Gates, masked
from pruners.channels.tracing import trace_channels
from tests.helpers.networks import CASES, convolution, head

# Gates stand on the outputs of layers: not within recurrent layers that are not built from cells,
# not on parameters that no layer holds, and not in statistics over channels.
UNLIKE_MASKS = {
    "lstm", "lstm_bidirectional", "gru", "einsum_attention", "gathered", "group_norm",
    "layer_norm",
}  # fmt: skip
GATED = [name for name in CASES if name not in UNLIKE_MASKS]


def traced(name: str) -> Any:
    case = CASES[name]
    model, inputs = case.model(), case.inputs()
    return case, model, inputs, trace_channels(model, inputs, forward=case.forward)


@pytest.mark.parametrize("name", GATED)
def test_gates_of_one_change_no_bit_and_gates_of_zero_remove(name: str) -> None:
    case, model, inputs, graph = traced(name)
    model.eval()
    gates = Gates(model, graph)
    with torch.no_grad():
        expected = case.run(model, inputs)
        with gates:
            for mine, theirs in zip(case.run(model, inputs), expected, strict=True):
                assert torch.equal(mine, theirs)
        keep = {group.name: list(range(0, group.size, 2)) for group in graph.groups}
        for group, kept in keep.items():
            gates.values[group].zero_()[kept] = 1
        with masked(model, graph, keep):
            expected = case.run(model, inputs)
        with gates:
            found = case.run(model, inputs)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", GATED)
@pytest.mark.parametrize("kind", ["sites", "sites_before"])
def test_every_channel_passes_a_site(name: str, kind: Any) -> None:
    for group in traced(name)[3].groups:
        passing = torch.cat([site.channel for site in getattr(group, kind)])
        assert set(range(group.size)) <= set(passing.tolist())


def test_groups_without_a_layer_output_have_no_gates() -> None:
    """Attention heads in bare parameters: a gate without effect would give them scores of zero."""
    _, model, _, graph = traced("einsum_attention")
    gates = Gates(model, graph).values
    assert set(gates) == {"embedding", "hidden"}
    assert len(graph.groups) == 5


@pytest.mark.parametrize("normalised", [weight_norm, spectral_norm])
def test_layers_with_computed_weights_are_gated_and_their_parametrizations_are_not(
    normalised: Any,
) -> None:
    model: Any = nn.Sequential(normalised(nn.Linear(3, 4)), normalised(nn.Linear(4, 2)))
    (group,) = trace_channels(model, torch.zeros(2, 3)).groups
    assert [(site.module, site.axis) for site in group.sites] == [("0", 1)]


def test_gates_are_after_normalisation_or_before() -> None:
    (group,) = traced("depthwise")[3].groups[1:]
    assert [site.module for site in group.sites] == ["2.1"]
    assert [site.module for site in group.sites_before] == ["2.0"]


@pytest.mark.parametrize("name", ["resnet18", "psmm_tied"])
def test_gradients_of_gates_are_slopes_of_the_loss(name: str) -> None:
    case, model, inputs, graph = traced(name)
    model.eval()
    gates = Gates(model, graph)
    group = graph.groups[0].name

    def loss() -> Any:
        with gates:
            return case.run(model, inputs)[0].sin().sum()

    (slope,) = torch.autograd.grad(loss(), [gates.values[group]])
    with torch.no_grad():
        for channel in range(len(slope)):
            gates.values[group][channel] += 1e-5
            above = loss()
            gates.values[group][channel] -= 2e-5
            below = loss()
            gates.values[group][channel] += 1e-5
            assert (above - below).item() / 2e-5 == pytest.approx(slope[channel].item(), rel=1e-5)


def test_second_derivatives_are_differences_of_first_ones() -> None:
    case, model, inputs, graph = traced("actor_critic")
    gates = Gates(model, graph)
    values = list(gates.values.values())

    def gradient() -> Any:
        with gates:
            total = sum(output.sin().sum() for output in case.run(model, inputs))
        return torch.autograd.grad(total, values, create_graph=True)

    first = gradient()
    direction = [g.detach() for g in first]
    product = torch.autograd.grad(first, values, direction)
    with torch.no_grad():
        for value, step in zip(values, direction, strict=True):
            value += 1e-5 * step
    moved = gradient()
    for hg, after, before in zip(product, moved, first, strict=True):
        torch.testing.assert_close(hg, (after - before).detach() / 1e-5, rtol=1e-3, atol=1e-5)


def test_behind_batch_normalisation_the_gradient_is_that_of_scale_and_shift() -> None:
    """dL/dc = gamma dL/dgamma + beta dL/dbeta: the gradient needs no gate in the model."""
    model: Any = nn.Sequential(convolution(3, 6), *head(6)).double()
    graph = trace_channels(model, torch.zeros(2, 3, 8, 8, dtype=torch.float64))
    norm = model[0][1]
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    gates = Gates(model, graph)
    with gates:
        model(torch.randn(4, 3, 8, 8, dtype=torch.float64)).sin().sum().backward()
    expected = norm.weight * norm.weight.grad + norm.bias * norm.bias.grad
    torch.testing.assert_close(gates.values["0.0"].grad, expected.detach())


def test_a_dead_channel_has_no_gradient() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    graph = trace_channels(model, torch.zeros(1, 3))
    with torch.no_grad():
        model[1].weight[:, 2] = 0
    gates = Gates(model, graph)
    with gates:
        model(torch.ones(1, 3)).sum().backward()
    gradient = gates.values["0"].grad
    assert gradient is not None
    assert (gradient == 0).tolist() == [False, False, True, False]


def test_masks_keep_the_parameters_themselves_and_block_gradients() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    graph = trace_channels(model, torch.zeros(1, 3))
    weight = model[0].weight
    with masked(model, graph, {"0": [0, 2]}):
        assert model[0].weight[1].count_nonzero() == 0
        model(torch.ones(1, 3)).sum().backward()
    assert model[0].weight is weight
    assert (weight.grad.abs().sum(1) > 0).tolist() == [True, False, True, False]
