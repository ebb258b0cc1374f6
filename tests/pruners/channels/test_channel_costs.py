from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pruners.channels.composition import ChannelCosts, channel_costs
from pruners.channels.tracing import trace_channels


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
