"""Recurrent layers count as one operation, also on packed sequences."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from harness.errors import RequestError
from pruners.channels.gating import verify_shrink
from pruners.channels.groups import ChannelGroup
from pruners.channels.shrinking import shrink
from pruners.channels.tracing import trace_channels
from tests.helpers.cutting import assert_same_trajectory
from tests.helpers.networks import Case


class Tagger(nn.Module):
    """Features, a recurrent layer of any kind, and two heads."""

    def __init__(self, kind: Any, *, packed: bool = False, **options: Any) -> None:
        super().__init__()
        directions = 2 if options.get("bidirectional") else 1
        width = options.get("proj_size") or 6
        self.first, self.packed = nn.Linear(3, 5), packed
        self.recurrent = kind(5, 6, batch_first=True, **options)
        self.out, self.last = nn.Linear(directions * width, 4), nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Any:
        features: Any = self.first(x)
        if self.packed:
            lengths = torch.tensor([4, 3])
            features = pack_padded_sequence(features, lengths, batch_first=True)
        outputs, state = self.recurrent(features)
        if self.packed:
            outputs = pad_packed_sequence(outputs, batch_first=True)[0]
        return self.out(outputs), self.last((state[0] if isinstance(state, tuple) else state)[-1])


def axes(group: ChannelGroup) -> dict[tuple[str, int], int]:
    return {(member.tensor, member.dim): member.index.shape[1] for member in group.members}


def test_the_gates_of_all_layers_and_directions_are_one_group() -> None:
    model: Any = Tagger(nn.LSTM, num_layers=2, bidirectional=True)
    words, hidden = trace_channels(model, torch.zeros(2, 4, 3)).groups
    ends = ("l0", "l0_reverse", "l1", "l1_reverse")
    assert axes(words) == {
        ("first.weight", 0): 1,
        ("first.bias", 0): 1,
        ("recurrent.weight_ih_l0", 1): 1,
        ("recurrent.weight_ih_l0_reverse", 1): 1,
    }
    assert axes(hidden) == {
        **{(f"recurrent.{n}_{e}", 0): 4 for n in ("weight_ih", "weight_hh") for e in ends},
        **{(f"recurrent.{n}_{e}", 0): 4 for n in ("bias_ih", "bias_hh") for e in ends},
        **{(f"recurrent.weight_hh_{end}", 1): 1 for end in ends},
        ("recurrent.weight_ih_l1", 1): 2,
        ("recurrent.weight_ih_l1_reverse", 1): 2,
        ("out.weight", 1): 2,
        ("last.weight", 1): 1,
    }
    rows = next(m for m in hidden.members if m.tensor == "recurrent.weight_ih_l0")
    assert rows.index[1].tolist() == [1, 7, 13, 19]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (nn.LSTM, {"num_layers": 2, "bidirectional": True}),
        (nn.LSTM, {"proj_size": 2, "bias": False}),
        (nn.GRU, {"bidirectional": True, "bias": False}),
        (nn.RNN, {"num_layers": 2}),
        (nn.RNN, {"nonlinearity": "relu"}),
    ],
)
def test_a_shrunk_layer_computes_and_learns_what_the_masked_one_does(
    kind: Any, options: Any, packed: bool
) -> None:
    torch.manual_seed(0)
    model: Any = Tagger(kind, packed=packed, **options).double()
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    graph = trace_channels(model, x)
    keep = {g.name: [0, *range(2, g.size)][: max(1, g.size - 2)] for g in graph.groups}
    smaller = copy.deepcopy(model)
    shrink(smaller, graph, keep)
    verify_shrink(model, graph, keep, smaller, x, tolerance=1e-10)
    if "proj_size" not in options:  # of which a half could be too few
        assert_same_trajectory(Case(lambda: copy.deepcopy(model), lambda: (x,), 0), "momentum")


def test_the_lengths_of_packed_sequences_pin_no_channel() -> None:
    graph = trace_channels(Tagger(nn.LSTM, packed=True), torch.zeros(2, 4, 3))
    assert graph.sizes() == {"first": 5, "recurrent": 6}


def test_a_projection_almost_as_wide_as_its_cells_is_followed() -> None:
    graph = trace_channels(Tagger(nn.LSTM, proj_size=5), torch.zeros(2, 4, 3))
    assert graph.sizes() == {"first": 5, "recurrent": 6, "recurrent#2": 5}


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_steps_are_not_computed_on_meta(kind: Any) -> None:
    model: Any = Tagger(kind, bidirectional=True)
    on_meta = trace_channels(model, torch.zeros(2, 4, 3, device="meta"))
    assert on_meta.to_json() == trace_channels(model, torch.zeros(2, 4, 3)).to_json()


def test_a_state_from_outside_pins_the_width() -> None:
    class Stateful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.cell, self.last = nn.Linear(3, 5), nn.GRU(5, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor, state: Tensor) -> Any:
            return self.last(self.cell(self.first(x), state)[0])

    graph = trace_channels(Stateful(), (torch.zeros(4, 2, 3), torch.zeros(1, 2, 6)))
    assert graph.sizes() == {"first": 5}
    assert "cell.weight_hh_l0:1" in graph.pinned


def test_a_projection_as_wide_as_its_cells_is_refused_before_the_cut() -> None:
    model: Any = Tagger(nn.LSTM, proj_size=3)
    graph = trace_channels(model, torch.zeros(2, 4, 3))
    model.to(torch.float64)
    assert graph.sizes() == {"first": 5, "recurrent": 6, "recurrent#2": 3}
    weight = model.recurrent.weight_hh_l0
    with pytest.raises(RequestError, match="'recurrent' would project 3 cells to 3 channels"):
        shrink(model, graph, {"recurrent": [0, 1, 2]})
    assert model.recurrent.weight_hh_l0 is weight
    shrink(model, graph, {"recurrent": [0, 1, 2], "recurrent#2": [0, 2]})
    assert model(torch.zeros(2, 4, 3).double())[0].shape == (2, 4, 4)
