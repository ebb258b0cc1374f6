"""The filters of channels, and what channels cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pruners.channels.composition import (
    ChannelCosts,
    channel_costs,
    filters,
    gate_gradients,
    structures,
)
from pruners.channels.gating import Gates
from pruners.channels.state import returned_tensors
from pruners.channels.tracing import trace_channels
from pruners.channels.units import Channels
from tasks.images.networks import resnet18
from tasks.ptb.model import PSMM
from tests.helpers.networks import CASES


def test_filters_are_the_weights_that_compute_a_channel_in_any_layer() -> None:
    tokens = torch.zeros(1, 3, dtype=torch.long)
    model: Any = PSMM(vocabulary=12, hidden=5)
    own = filters(model, Channels(model, lambda model: model(tokens)[0]).graph)
    lstm = model.lstm
    # Channel 2 of the LSTM: its rows in all four gates, and the query that is compared with it.
    gates = [2, 7, 12, 17]
    assert torch.equal(own["lstm"][0][2], lstm.weight_ih[gates].flatten())
    assert torch.equal(own["lstm"][1][2], lstm.weight_hh[gates].flatten())
    assert torch.equal(own["lstm"][2][2], model.query.weight[2])
    assert torch.equal(own["embedding"][0], model.embedding.weight.t())

    images = torch.zeros(1, 2, 4, 4)
    upwards: Any = nn.Sequential(nn.ConvTranspose2d(2, 3, 2), nn.Conv2d(3, 1, 1))
    (transposed,) = filters(upwards, Channels(upwards, lambda m: m(images)).graph)["0"]
    assert torch.equal(transposed, upwards[0].weight.transpose(0, 1).flatten(1))


def test_a_channel_costs_what_computes_it_and_what_reads_it() -> None:
    model: Any = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 25, 7)
    ).eval()
    image = torch.zeros(1, 2, 5, 5)
    graph = trace_channels(model, image)
    # A kernel of 2*9 weights and its bias, scale and shift; 25 columns of 7 in the linear layer.
    expected = ChannelCosts(parameters=18 + 1 + 2 + 25 * 7, macs=25 * 18 + 25 * 7)
    assert channel_costs(model, graph, lambda: model(image)) == {"0": expected}


def test_a_weight_that_is_read_and_computed_counts_once() -> None:
    cell = nn.LSTMCell(3, 5, bias=False)
    steps = torch.zeros(1, 3)

    def run(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        hidden, _ = model(inputs, model(inputs))
        outputs: torch.Tensor = hidden.sum(1)
        return outputs

    graph = trace_channels(cell, steps, forward=run)
    (costs,) = channel_costs(cell, graph, lambda: run(cell, steps)).values()
    # Four rows of weight_ih (20, 3); four rows and a column of weight_hh (20, 5).
    assert costs.parameters == 4 * 3 + (20 * 5 - 16 * 4)


NOT_EXACT = ("lstm", "lstm_bidirectional", "gru", "psmm_untied", "psmm_tied", "einsum_attention")
"""Recurrent layers, and a module that holds its weights itself."""


@pytest.mark.parametrize("name", sorted(CASES.keys() - set(NOT_EXACT)))
def test_the_gradient_of_a_gate_follows_from_those_of_the_parameters(name: str) -> None:
    case = CASES[name]
    model, inputs = case.model(), case.inputs()
    graph = trace_channels(model, inputs, forward=case.forward)
    model.train()

    with Gates(model, graph) as gates:
        torch.manual_seed(1)
        outputs = returned_tensors((case.forward or nn.Module.__call__)(model, *inputs))
        torch.stack([output.sin().sum() for output in outputs]).sum().backward()
    found = gate_gradients(model, graph)

    assert found
    for group, gradient in found.items():
        expected = gates.values[group].grad
        torch.testing.assert_close(gradient, expected, msg=f"{name}, {group}")


def test_a_recurrent_gate_is_one_on_the_weights_of_its_rows() -> None:
    cell = nn.LSTMCell(3, 5)
    inputs = torch.randn(2, 3)

    def run(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        hidden, _ = model(inputs, model(inputs))
        outputs: torch.Tensor = hidden.sum(1)
        return outputs

    graph = trace_channels(cell, inputs, forward=run)
    run(cell, inputs).sum().backward()
    rows = [2, 7, 12, 17]
    expected = 0.0
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        theta = cell.get_parameter(name)
        assert theta.grad is not None
        expected += float((theta.detach() * theta.grad)[rows].sum())
    (gradient,) = gate_gradients(cell, graph).values()
    assert float(gradient[2]) == pytest.approx(expected, rel=1e-5)


def test_groups_of_one_structure_differ_in_their_sizes_only() -> None:
    image = torch.zeros(1, 1, 8, 8)
    model = resnet18(width=4, classes=10, channels=1)
    found = structures(model, trace_channels(model, image))
    inner = [f"{number}.conv1" for number in range(3, 11)]
    assert len({found[name] for name in inner}) == 1
    # Between the stages two blocks write; the last stage is read by the linear layer.
    assert found["5.conv2"] == found["7.conv2"]
    assert len({found[name] for name in ("0", "3.conv1", "5.conv2", "9.conv2")}) == 4


def test_groups_of_different_kinds_of_layers_differ_in_their_structure() -> None:
    layers = nn.Conv2d(1, 3, 2), nn.Flatten(), nn.Linear(3 * 4, 5), nn.Linear(5, 4), nn.Linear(4, 2)
    model = nn.Sequential(*layers)
    found = structures(model, trace_channels(model, torch.zeros(1, 1, 3, 3)))
    assert found["2"] == found["3"]
    assert found["0"] != found["2"], "a convolution computes it"
