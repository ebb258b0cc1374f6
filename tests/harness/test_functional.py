"""A network as a function of its weights: what it computes, and that the network stays as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.errors import RequestError, RunFailed
from harness.functional import FunctionalNetwork
from harness.prunable import prunable_weights
from harness.pruning.event import digest, scoring_of
from harness.scoring import scoring_mode
from pruners.channels.units import Channels
from tests.helpers.regression import batch, line, weights_of
from tests.helpers.workbench import Workbench

SAMPLES = torch.randn(8, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
BATCH = (SAMPLES, torch.ones(8, 4, dtype=torch.float64))


class Tied(nn.Module):
    """Two layers that share one weight, of which the second is also a plain parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Parameter(torch.randn(4, 4))
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.first.weight = self.second.weight = self.shared

    def forward(self, x: Tensor) -> Any:
        return self.second(torch.tanh(self.first(x)))


class Recurrent(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Any:
        result = self.layer(x)
        return result[0] if isinstance(result, tuple) else result


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(8, 4)
    ),
    "normalised": lambda: nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 4)
    ),
    "tied": Tied,
    "lstm": lambda: Recurrent(nn.LSTM(4, 4)),
    "lstm cell": lambda: Recurrent(nn.LSTMCell(4, 4)),
    "gru": lambda: Recurrent(nn.GRU(4, 4)),
}


def built(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[kind]().double()


def functional(model: nn.Module, new: Callable[[], nn.Module] | None = None) -> FunctionalNetwork:
    return weights_of(model, [BATCH], new).functional()


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_loss_at_other_weights_is_that_of_a_network_with_these_weights(kind: str) -> None:
    model = built(kind)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for weight in prunable_weights(other).values():
            weight.mul_(0.5)
    values = {name: weight.detach() / 2 for name, weight in prunable_weights(model).items()}
    before = digest(model.state_dict())
    with scoring_mode(model, batch_statistics=True), scoring_mode(other, batch_statistics=True):
        own, found = functional(model), functional(model).loss(values, 0)
        expected = functional(other).loss({}, 0)
        assert torch.equal(own.outputs({}, BATCH), model_outputs(model))
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)
    assert digest(model.state_dict()) == before
    assert not any(parameter.grad is not None for parameter in model.parameters())


def model_outputs(model: nn.Module) -> Tensor:
    outputs: Tensor = model(SAMPLES)
    return outputs.flatten(1)


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_gradient_with_respect_to_the_values_is_a_finite_difference(kind: str) -> None:
    model = built(kind)
    with scoring_mode(model, batch_statistics=True):
        network = functional(model)
        name = next(iter(prunable_weights(model)))
        value = (network.parameters()[name] * 0.9).requires_grad_()
        (gradient,) = torch.autograd.grad(network.loss({name: value}, 0), value)
        for place in [(0,) * value.dim(), (-1,) * value.dim()]:
            nudge = torch.zeros_like(value)
            nudge[place] = 1e-6
            above, below = (network.loss({name: value + s * nudge}, 0) for s in (1, -1))
            torch.testing.assert_close(
                (above - below) / 2e-6, gradient[place], rtol=1e-6, atol=1e-8
            )


def test_the_values_may_themselves_depend_on_something() -> None:
    # The loss (6 m - 4)^2 / 2 of the weight 2 and the input 3 has the slope 6 (6 m - 4) in m.
    network = weights_of(line([2.0]), [batch([[3.0]], [4.0])]).functional()
    mask = torch.tensor([[0.5]], dtype=torch.float64, requires_grad=True)
    loss = network.loss({"weight": mask * network.parameters()["weight"]}, 0)
    assert loss.item() == 0.5
    assert torch.autograd.grad(loss, mask)[0].item() == -6


def test_after_the_last_scoring_batch_comes_the_first_again() -> None:
    batches = [batch([[1.0]], [target]) for target in (1.0, 3.0)]
    network = weights_of(line([1.0]), batches).functional()
    assert network.batches == 2
    assert [network.loss({}, number).item() for number in range(5)] == [0, 2, 0, 2, 0]


def test_frozen_parameters_do_not_learn() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).double()
    model[0].requires_grad_(False)
    network = functional(model)
    assert list(network.parameters(learning=True)) == ["1.weight", "1.bias"]
    assert list(network.parameters()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    network.parameters()["1.weight"].zero_()
    assert model.get_parameter("1.weight").any(), "they are copies"


def test_a_tied_weight_has_the_name_of_the_variable() -> None:
    model = built("tied")
    assert next(model.named_parameters())[0] == "shared"
    assert list(functional(model).parameters()) == ["first.weight", "first.bias", "second.bias"]


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"wieght": torch.zeros(1, 1)}, "no parameter 'wieght'; did you mean 'weight'?"),
        ({"weight": torch.zeros(2)}, r"'weight' has the shape \(2,\), and the parameter \(1, 1\)"),
    ],
)
def test_values_of_no_parameter_are_refused(values: dict[str, Tensor], complaint: str) -> None:
    network = weights_of(line([1.0]), [batch([[1.0]], [1.0])]).functional()
    with pytest.raises(RunFailed, match=complaint):
        network.loss(values, 0)


def test_gates_are_not_weights(bench: Workbench) -> None:
    begun = bench.begin()
    task, model = begun.trainer.task, begun.trainer.model
    channels = Channels(model, task.forward)
    with (
        scoring_of(task, model, channels, task.scoring_batches(0), torch.Generator()) as scoring,
        pytest.raises(RequestError, match=r"scores weights: prune\(Weights, \.\.\.\)"),
    ):
        scoring.functional()


# New networks and inputs


def test_new_networks_depend_on_the_generator_alone() -> None:
    network = functional(built("tied"), lambda: built_anew("tied"))
    random_state = torch.get_rng_state()
    first, again, other = (
        network.initial(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert list(first) == ["first.weight", "first.bias", "second.bias"]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["first.weight"], other["first.weight"])
    assert torch.equal(torch.get_rng_state(), random_state)


def built_anew(kind: str) -> nn.Module:
    return NETWORKS[kind]().double()


def test_a_network_that_has_lost_channels_cannot_be_drawn_again() -> None:
    network = functional(nn.Linear(4, 3), lambda: nn.Linear(4, 4))
    with pytest.raises(RequestError, match="this one has lost channels"):
        network.initial(torch.Generator())


def test_noise_replaces_real_numbers_and_leaves_words() -> None:
    words = torch.arange(600).view(100, 6)
    features = torch.zeros(100, 50)
    network = weights_of(line([1.0]), [(words, features)]).functional()
    kept, drawn = network.noise(torch.Generator().manual_seed(0))
    assert torch.equal(kept, words)
    assert abs(drawn.mean()) < 0.05
    assert abs(drawn.std() - 1) < 0.05
    assert not features.any()
