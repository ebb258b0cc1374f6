"""Which weights count in layers that compute their weights from others."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils import prune as torch_prune
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

from harness.errors import Skip
from harness.prunable import copied, make_plain, never_zero, prunable_weights
from harness.pruning.connectivity import effective_masks
from pruners.weights import Weights

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


class Scaled(nn.Module):
    """Triples a weight."""

    def forward(self, weight: Tensor) -> Tensor:
        return 3 * weight


def scaled(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", Scaled())
    return layer


def old_weight_norm(layer: nn.Module) -> nn.Module:
    return torch.nn.utils.weight_norm(layer)


def masked(layer: nn.Module) -> nn.Module:
    pruned: nn.Module = torch_prune.identity(layer, "weight")
    return pruned


WRAPS: dict[str, tuple[Callable[[nn.Module], nn.Module], bool]] = {
    "plain": (lambda layer: layer, True),
    "weight_norm": (weight_norm, False),
    "old_weight_norm": (old_weight_norm, False),
    "spectral_norm": (spectral_norm, False),
    "old_spectral_norm": (old_spectral_norm, False),
    "orthogonal": (orthogonal, False),
    "scaled": (scaled, True),
    "masked": (masked, True),
}


def network(wrap: Callable[[nn.Module], nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        wrap(nn.Linear(4, 6)), nn.ReLU(), wrap(nn.ConvTranspose1d(1, 3, 2)), nn.Flatten()
    )


@pytest.mark.parametrize("kind", WRAPS)
def test_every_weight_counts_once(kind: str) -> None:
    weights = prunable_weights(network(WRAPS[kind][0]))
    if kind != "orthogonal":
        assert [tuple(weight.shape) for weight in weights.values()] == [(6, 4), (1, 3, 2)]
    assert len(weights) == 2


def test_the_directions_of_a_column_are_prunable_and_its_lengths_are_not() -> None:
    (name,) = prunable_weights(weight_norm(nn.Linear(1, 5)))
    assert name == "parametrizations.weight.original1"


def test_one_weight_of_a_recurrent_layer_may_be_normalised() -> None:
    layer = weight_norm(nn.LSTM(3, 4), "weight_hh_l0")
    shapes = {name: tuple(weight.shape) for name, weight in prunable_weights(layer).items()}
    assert shapes == {
        "weight_ih_l0": (16, 3),
        "parametrizations.weight_hh_l0.original1": (16, 4),
    }


def test_a_computed_bias_does_not_count() -> None:
    layer = nn.Linear(4, 6)
    parametrize.register_parametrization(layer, "bias", Scaled())
    assert list(prunable_weights(layer)) == ["weight"]


@pytest.mark.parametrize("kind", WRAPS)
def test_computed_weights_are_masked_only_if_zeros_stay_zero(kind: str) -> None:
    wrap, stays = WRAPS[kind]
    model = network(wrap)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert (never_zero(model) == {}) is stays
    if stays:
        units = Weights(model)
        drawn = {name: torch.rand(mask.shape) > 0.5 for name, mask in units.alive().items()}
        units.apply(model, None, (), drawn)
        model(torch.randn(5, 1, 4))
        (kept, *_) = units.alive().values()
        assert torch.equal(cast(Tensor, model.get_submodule("0").weight).ne(0), kept)
    else:
        with pytest.raises(Skip, match=r"^weights are computed from others, .* in 0 \(.*\), 2 \("):
            Weights(model)
        assert all(torch.equal(before[n], value) for n, value in model.state_dict().items())


@pytest.mark.parametrize("kind", WRAPS)
def test_a_copy_may_have_plain_weights(kind: str) -> None:
    model = network(WRAPS[kind][0])
    x = torch.randn(5, 1, 4)
    outputs = model.eval()(x)
    copy = copied(model)
    names = make_plain(copy)
    assert set(names.values()) <= {"0.weight", "2.weight"}
    assert list(prunable_weights(copy)) == ["0.weight", "2.weight"]
    torch.testing.assert_close(copy(x), outputs)
    assert torch.equal(model(x), outputs), "the model itself is as it was"


@pytest.mark.parametrize("kind", WRAPS)
def test_every_weight_of_a_dense_network_is_effective(kind: str) -> None:
    model = network(WRAPS[kind][0])

    def flow(network: nn.Module) -> Tensor:
        total: Tensor = network(torch.ones(1, 1, 4, dtype=torch.double)).sum()
        return total

    masks = effective_masks(flow, model, {})
    assert list(masks) == list(prunable_weights(model))
    assert all(bool(mask.all()) for mask in masks.values())
