"""The kinds of channels follow from operations, never from names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pruners.channels import ChannelGraph, trace_channels
from pruners.channels.kinds import (
    CONVOLUTION,
    EMBEDDING,
    HEADS,
    KINDS,
    NEURONS,
    OTHER,
    RECURRENT_UNITS,
    RESIDUAL,
    kind_of,
)
from tests.helpers.networks import CASES


class Shortcut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.back, self.last = (
            nn.Conv2d(3, 8, 1),
            nn.Conv2d(8, 5, 1),
            nn.Conv2d(5, 8, 1),
            nn.Conv2d(8, 2, 1),
        )

    def forward(self, x: Tensor) -> Any:
        x = self.first(x)
        return self.last(x + self.back(self.inner(x).relu()))


class Words(nn.Module):
    """A step of a recurrent cell for each word."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.cell, self.last = nn.Embedding(7, 4), nn.GRUCell(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Any:
        words = self.words(x)
        state = words.new_zeros(len(x), self.cell.hidden_size)
        for word in words.unbind(1):
            state = self.cell(word, state)
        return self.last(state)


IMAGE, NUMBERS = torch.randn(2, 3, 4, 4), torch.randn(2, 3)


@pytest.mark.parametrize(
    ("model", "x", "kinds"),
    [
        (Shortcut(), IMAGE, {"first": RESIDUAL, "inner": CONVOLUTION}),
        (nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2)), NUMBERS, {"0": NEURONS}),
        (
            Words(),
            torch.zeros(2, 3, dtype=torch.long),
            {"words": EMBEDDING, "cell": RECURRENT_UNITS},
        ),
    ],
)
def test_the_kind_says_what_an_operation_does_with_channels(
    model: nn.Module, x: Tensor, kinds: dict[str, str]
) -> None:
    assert trace_channels(model, x).kinds() == kinds


def test_residual_width_is_found_when_the_forward_provides_the_input() -> None:
    graph = trace_channels(Shortcut(), (), forward=lambda model: model(IMAGE))
    assert graph.kinds() == {"first": RESIDUAL, "inner": CONVOLUTION}


@pytest.mark.parametrize("name", ["lstm", "gru", "lstm_bidirectional"])
def test_recurrent_layers_have_recurrent_units(name: str) -> None:
    case = CASES[name]
    graph = trace_channels(case.model(), case.inputs(), forward=case.forward)
    assert graph.kinds() == {"embedding": EMBEDDING, "recurrent": RECURRENT_UNITS}


def test_the_first_kind_that_a_channel_is_marked_with_decides() -> None:
    assert kind_of([{NEURONS}, {RESIDUAL, NEURONS}]) == RESIDUAL
    assert kind_of([{NEURONS, HEADS}]) == HEADS
    assert kind_of([set(), set()]) == OTHER == KINDS[-1]


def test_kinds_are_part_of_a_graph_that_is_saved() -> None:
    graph = trace_channels(Shortcut(), IMAGE)
    assert ChannelGraph.from_json(graph.to_json()).kinds() == graph.kinds()
