"""Which weights count, and how they are counted."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from harness.prunable import dense_shapes, layers, prunable_weights, weight_sparsity
from harness.units import Units
from pruners.distributions import whole_network
from pruners.weights import Weights


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def masked(model: nn.Module, first: Tensor) -> Units:
    """Remove weights of the first layer."""
    units = Weights(model)
    units.apply(model, None, [], {"0.weight": first, "2.weight": torch.ones(2, 4) > 0})
    return units


def test_weights_are_counted_from_masks_and_never_from_zeros() -> None:
    model = network()
    nn.init.zeros_(model.get_parameter("2.weight"))
    first = torch.ones(4, 3, dtype=torch.bool)
    first[0] = False
    counts = layers(model, [masked(model, first)], dense_shapes(model))
    assert [(layer["name"], layer["weights"], layer["kept"]) for layer in counts] == [
        ("0.weight", 12, 9),
        ("2.weight", 8, 8),
    ]
    assert weight_sparsity(counts) == pytest.approx(3 / 20)


def test_a_shrunk_model_is_compared_with_the_dense_one() -> None:
    dense = dense_shapes(network())
    smaller = nn.Sequential(nn.Linear(3, 1), nn.BatchNorm1d(1), nn.Linear(1, 2))
    counts = layers(smaller, [], dense)
    assert counts[0] == {
        "name": "0.weight",
        "dense_shape": [4, 3],
        "shape": [1, 3],
        "weights": 12,
        "kept": 3,
    }
    assert weight_sparsity(counts) == pytest.approx(1 - (3 + 2) / 20)


def test_masks_on_a_shrunk_model_count_too() -> None:
    dense = dense_shapes(network())
    smaller = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    units = Weights(smaller)
    magnitude = {name: w.detach().abs() for name, w in units.variables(smaller).items()}
    units.apply(smaller, None, [], units.select(magnitude, 0.5, whole_network))
    assert weight_sparsity(layers(smaller, [units], dense)) == pytest.approx(1 - 5 / 20)


def test_the_sparsity_of_a_dense_network_is_zero() -> None:
    model = network()
    assert weight_sparsity(layers(model, [], dense_shapes(model))) == 0


class Everything(nn.Module):
    """One of each kind of layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.lstm = nn.LSTM(3, 3)
        self.cell = nn.LSTMCell(3, 3)
        self.convolution = nn.Conv3d(1, 2, 3)
        self.transposed = nn.ConvTranspose2d(2, 1, 3)
        self.norms = nn.ModuleList([nn.BatchNorm2d(2), nn.LayerNorm(3), nn.GroupNorm(1, 2)])
        self.sentinel = nn.Parameter(torch.zeros(3))
        self.linear = nn.Linear(3, 5)
        self.linear.weight = self.embedding.weight


def test_weights_of_layers_are_prunable_and_biases_norms_and_free_parameters_are_not() -> None:
    assert list(prunable_weights(Everything())) == [
        "embedding.weight",  # and linear.weight, which is the same tensor
        "lstm.weight_ih_l0",
        "lstm.weight_hh_l0",
        "cell.weight_ih",
        "cell.weight_hh",
        "convolution.weight",
        "transposed.weight",
    ]


def test_tied_weights_count_once() -> None:
    counts = layers(Everything(), [], dense_shapes(Everything()))
    assert sum(layer["weights"] for layer in counts) == 15 + 2 * 36 + 2 * 36 + 54 + 18
