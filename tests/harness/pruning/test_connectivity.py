"""Which of the remaining weights still connect an input with an output."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import cast

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from harness.pruning.connectivity import effective_masks, emptied_layers


def flow_of(*shape: int) -> Callable[[nn.Module], Tensor]:
    """Return a forward pass of a batch of ones, summed."""
    return lambda model: model(torch.ones(shape, dtype=torch.double)).sum()


def mask(rows: list[list[int]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.bool)


def test_a_hidden_unit_without_inputs_or_outputs_disconnects_its_weights() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    masks = {
        "0.weight": mask([[1, 0], [0, 0], [1, 1]]),  # the second unit has no input
        "2.weight": mask([[1, 1, 0]]),  # the third one has no output
    }
    effective = effective_masks(flow_of(1, 2), model, masks)
    assert effective["0.weight"].tolist() == [[True, False], [False, False], [False, False]]
    assert effective["2.weight"].tolist() == [[True, False, False]]


def test_weights_without_a_mask_are_kept_and_the_model_is_unchanged() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    effective = effective_masks(flow_of(1, 2), model, {})
    assert [each.all().item() for each in effective.values()] == [True, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3, padding=1)
        self.inner = nn.Conv2d(2, 2, 3, padding=1)
        self.norm = nn.BatchNorm2d(2)
        self.outer = nn.Conv2d(2, 2, 3, padding=1)
        self.head = nn.Linear(2, 1)

    def forward(self, images: Tensor) -> Tensor:
        entry = self.first(images)
        branch = self.outer(torch.relu(self.norm(self.inner(entry))))
        return cast(Tensor, self.head((entry + branch).mean((2, 3))))


def test_an_emptied_layer_beside_a_skip_connection_silences_its_branch_alone() -> None:
    model = Residual()
    with torch.no_grad():
        model.norm.weight.fill_(-1)  # what a norm has learned must not matter
        model.norm.bias.fill_(3)
    masks = {"inner.weight": torch.zeros(2, 2, 3, 3, dtype=torch.bool)}
    effective = effective_masks(flow_of(1, 1, 5, 5), model, masks)
    alive = {name: each.all().item() for name, each in effective.items()}
    assert alive == {
        "first.weight": True,
        "inner.weight": False,
        "outer.weight": False,
        "head.weight": True,
    }
    assert not effective["outer.weight"].any()
    assert emptied_layers(masks) == ["inner.weight"]


class Cell(nn.Module):
    def __init__(self, inputs: int, hidden: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.cell = nn.LSTMCell(inputs, hidden)
        self.sentinel = nn.Parameter(torch.full((hidden,), -1.0))
        self.head = nn.Linear(hidden, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        state = None
        for _ in range(self.steps):
            state = self.cell(inputs, state)
        assert state is not None
        return cast(Tensor, self.head(state[0] * self.sentinel))


def test_a_unit_of_an_lstm_is_connected_if_an_input_reaches_its_cell() -> None:
    model = Cell(inputs=2, hidden=2, steps=3)
    # Rows: input gates, forget gates, cells and output gates of the two units.
    cells = torch.ones(8, 2, dtype=torch.bool)
    cells[5] = False
    recurrent = torch.zeros(8, 2, dtype=torch.bool)
    masks = {"cell.weight_ih": cells, "cell.weight_hh": recurrent}
    effective = effective_masks(flow_of(1, 2), model, masks)
    rows = effective["cell.weight_ih"].all(1).tolist()
    assert rows == [True, False] * 4
    assert effective["head.weight"].tolist() == [[True, False]]

    # The first unit now feeds the second one's cell.
    recurrent = torch.zeros(8, 2, dtype=torch.bool)
    recurrent[5, 0] = True
    effective = effective_masks(flow_of(1, 2), model, masks | {"cell.weight_hh": recurrent})
    assert effective["cell.weight_ih"].all(1).tolist() == cells.all(1).tolist()
    assert effective["cell.weight_hh"].nonzero().tolist() == [[5, 0]]


def test_gates_do_not_saturate_in_a_wide_lstm() -> None:
    model = Cell(inputs=400, hidden=200, steps=40)
    effective = effective_masks(flow_of(1, 400), model, {})
    assert all(each.all() for each in effective.values())


def test_no_connection_vanishes_or_overflows_in_a_deep_network() -> None:
    layers = [layer for _ in range(300) for layer in (nn.Linear(20, 20), nn.ReLU())]
    one_in_each_row = {f"{2 * i}.weight": torch.eye(20, dtype=torch.bool) for i in range(300)}
    for masks in (one_in_each_row, {}):
        effective = effective_masks(flow_of(1, 20), nn.Sequential(*layers), masks)
        assert all(torch.equal(kept, masks.get(name, kept)) for name, kept in effective.items())
        assert all(kept.any(1).all() for kept in effective.values())


def test_pooling_connects_every_position_since_any_may_be_the_maximum() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 1, 3, padding=1), nn.MaxPool2d(2), nn.LayerNorm((1, 1)), nn.Flatten()
    )
    effective = effective_masks(flow_of(1, 1, 2, 2), model, {})
    assert effective["0.weight"].all()


def test_the_outputs_of_a_transposed_convolution_are_its_second_dimension() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ConvTranspose2d(2, 3, 2, 2), nn.Conv2d(3, 1, 1))
    kept = torch.ones(2, 3, 2, 2, dtype=torch.bool)
    kept[:, 1] = False
    kept[0] = False
    effective = effective_masks(flow_of(1, 1, 2, 2), model, {"1.weight": kept})
    assert effective["0.weight"].flatten().tolist() == [False, True]
    assert torch.equal(effective["1.weight"], kept)
    assert effective["2.weight"].flatten().tolist() == [True, False, True]


def test_a_transposed_convolution_averages_its_many_inputs() -> None:
    model = nn.Sequential(nn.Conv1d(1, 400, 1), nn.ConvTranspose1d(400, 1, 2), nn.Tanh())
    effective = effective_masks(flow_of(1, 1, 3), model, {})
    assert all(each.all() for each in effective.values())


def test_tied_weights_are_connected_if_either_use_is() -> None:
    model = nn.Sequential(
        OrderedDict(first=nn.Linear(2, 2), second=nn.Linear(2, 2), last=nn.Linear(2, 1))
    )
    cast(nn.Linear, model.second).weight = cast(nn.Linear, model.first).weight
    effective = effective_masks(flow_of(1, 2), model, {"first.weight": mask([[0, 0], [1, 0]])})
    # The second unit reads the first input; for the second use, the first unit is silent.
    assert effective["first.weight"].tolist() == [[False, False], [False, False]]
    effective = effective_masks(flow_of(1, 2), model, {"first.weight": mask([[1, 0], [1, 0]])})
    assert effective["first.weight"].tolist() == [[True, False], [True, False]]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), density=st.floats(0.05, 0.6))
def test_connectivity_agrees_with_a_search_of_the_graph(seed: int, density: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    widths = [3, 4, 5, 4, 2]
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    kept = [torch.rand(shape, generator=generator) < density for shape in shapes]
    layers = [
        layer
        for outputs, inputs in shapes
        for layer in (nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.Tanh())
    ]
    masks = {f"{3 * i}.weight": each for i, each in enumerate(kept)}

    reached = [torch.ones(widths[0], dtype=torch.bool)]
    for each in kept:
        reached.append((each & reached[-1]).any(1))
    useful = [torch.ones(widths[-1], dtype=torch.bool)]
    for each in reversed(kept):
        useful.insert(0, (each & useful[0][:, None]).any(0))
    expected = [each & reached[i] & useful[i + 1][:, None] for i, each in enumerate(kept)]
    effective = effective_masks(flow_of(1, 3), nn.Sequential(*layers), masks)
    assert [each.tolist() for each in effective.values()] == [each.tolist() for each in expected]
