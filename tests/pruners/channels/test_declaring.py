from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from harness.errors import RequestError
from pruners.channels.groups import ChannelGraph, declare_channels
from pruners.channels.shrinking import shrink
from pruners.channels.tracing import trace_channels
from tasks.ptb.model import PSMM

HIDDEN = 5
GATES = [[gate * HIDDEN + unit for gate in range(4)] for unit in range(HIDDEN)]


def slices(graph: ChannelGraph) -> dict[frozenset[tuple[str, int]], set[Any]]:
    """Return the positions of each channel, by the axes of its group, whatever name and order."""
    return {
        frozenset((m.tensor, m.dim) for m in group.members): {
            frozenset(
                (m.tensor, m.dim, i) for m in group.members for i in m.index[channel].tolist()
            )
            for channel in range(group.size)
        }
        for group in graph.groups
    }


def test_the_declared_groups_of_the_language_model_equal_the_traced_ones() -> None:
    model: Any = PSMM(vocabulary=12, hidden=HIDDEN)
    tokens = torch.zeros(1, 3, dtype=torch.long)
    declared = declare_channels(
        model,
        {
            "embedding": [("embedding.weight", 1), ("lstm.weight_ih", 1)],
            "hidden": [
                ("lstm.weight_ih", 0, GATES),
                ("lstm.weight_hh", 0, GATES),
                ("lstm.weight_hh", 1),
                ("lstm.bias_ih", 0, GATES),
                ("lstm.bias_hh", 0, GATES),
                ("query.weight", 0),
                ("query.weight", 1),
                ("query.bias", 0),
                ("vocabulary.weight", 1),
                ("sentinel", 0),
            ],
        },
    )
    traced = trace_channels(model, tokens, forward=lambda model, tokens: model(tokens)[0])
    assert slices(declared) == slices(traced)


def test_declared_channels_are_cut() -> None:
    model: Any = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    expected = copy.deepcopy(model)
    graph = declare_channels(model, {"hidden": [("0.weight", 0), ("0.bias", 0), ("2.weight", 1)]})
    shrink(model, graph, {"hidden": [0, 2]})
    expected[2].weight.data[:, 1] = 0
    x = torch.randn(4, 2)
    torch.testing.assert_close(model(x), expected(x))


@pytest.mark.parametrize(
    ("axes", "complaint"),
    [
        ([("0.wieght", 0)], "no tensor '0.wieght'; did you mean '0.weight'"),
        ([("0.bias", 1)], "'0.bias' has no axis 1"),
        ([("0.weight", 0, [[0], [3]])], "has only 3 positions"),
        ([("0.weight", 0, [[0], [0]])], "a position on axis 0 of '0.weight' is taken"),
        ([("0.weight", 0), ("0.weight", 1)], "different numbers of channels"),
    ],
)
def test_impossible_declarations_are_refused(axes: list[Any], complaint: str) -> None:
    model: Any = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    with pytest.raises(RequestError, match=complaint):
        declare_channels(model, {"hidden": axes})
