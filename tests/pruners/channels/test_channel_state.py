"""Tracing restores the model, and ignores what earlier passes left behind."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harness.errors import RequestError
from pruners.channels import shrink, trace_channels
from tests.helpers.cutting import Between, assert_it_learns, images


class Cached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)
        self.cache: Tensor | None = None
        self.calls, self.tables = 0, {"seen": list[torch.Size]()}

    def forward(self, x: Tensor) -> Any:
        x = self.first(x)
        self.calls += 1
        self.tables["seen"].append(x.shape)
        if self.cache is None:
            self.cache = torch.ones(x.shape[-1], dtype=x.dtype, device=x.device)
        return self.last(x + self.cache)


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_attributes_that_a_pass_sets_are_restored(device: str) -> None:
    model: Any = Cached()
    graph = trace_channels(model, torch.zeros(3, 4, device=device))
    assert (model.cache, model.calls, model.tables) == (None, 0, {"seen": []})
    shrink(model, graph, {"first": [0, 1]})
    assert model(torch.zeros(3, 4)).shape == (3, 2)


class Clipped(nn.Module):
    """Weights, buffers and tables that the pass changes in place."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.first = nn.Embedding(10, 6, max_norm=0.1), nn.Linear(6, 8)
        self.last, self.history = nn.Linear(8, 2), torch.zeros(3)
        self.generator = torch.Generator().manual_seed(3)

    def forward(self, x: Tensor) -> Any:
        self.first.weight.clamp_(-0.01, 0.01)
        self.last.weight.data = self.last.weight.data.sign()
        self.history[0] += 1
        np.random.rand()
        torch.rand(3, generator=self.generator)
        return self.last(self.first(self.table(x)))


def random_state() -> Any:
    state: Any = np.random.get_state()
    return state[1].tolist()


def test_weights_that_the_pass_changes_in_place_are_restored() -> None:
    model: Any = Clipped()
    before = copy.deepcopy(model)
    state = random_state()
    graph = trace_channels(model, torch.arange(10)[None])
    assert graph.sizes() == {"table": 6, "first": 8}
    for name, tensor in before.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert model.history.tolist() == [0, 0, 0]
    assert torch.equal(model.generator.get_state(), before.generator.get_state())
    assert random_state() == state


@functools.lru_cache
def heads_and_width(shape: Any) -> Any:
    return 2, shape[-1] // 2


def test_earlier_results_of_a_cached_function_are_ignored() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Any:
            x = self.first(x)
            x = x.view(*x.shape[:2], *heads_and_width(x.shape)).transpose(1, 2)
            return self.last(x.transpose(1, 2).flatten(2))

    model: Any = Heads()
    heads_and_width.cache_clear()
    assert trace_channels(model, torch.zeros(2, 5, 6)).sizes() == {"first": 4}
    assert heads_and_width.cache_info().currsize == 0
    model(torch.zeros(2, 7, 6))
    assert trace_channels(model, torch.zeros(2, 7, 6)).sizes() == {"first": 4}
    assert heads_and_width.cache_info().currsize == 1


def test_a_size_that_outlives_its_pass_is_a_plain_number() -> None:
    kept = []

    def keep(model: Any, x: Tensor) -> Any:
        x = model[0](x)
        kept.append(x.shape[1])
        return model[1](x)

    model: Any = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2))
    assert trace_channels(model, torch.zeros(2, 3), forward=keep).sizes() == {"0": 8}
    with pytest.raises(RequestError, match="written in the code"):
        trace_channels(
            model,
            torch.zeros(2, 3),
            forward=lambda model, x: model[1](model[0](x).view(2, kept[0])),
        )


def test_a_size_that_outlives_a_pass_that_fails_is_a_plain_number() -> None:
    kept = []

    def fail(model: Any, x: Tensor) -> Any:
        kept.extend([model[0](x).shape[1], model[1].width])
        raise ValueError("no data")

    model: Any = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2))
    model[1].width = 8
    with pytest.raises(RequestError, match="no data"):
        trace_channels(model, torch.zeros(2, 3), forward=fail)
    for size in kept:
        with pytest.raises(RequestError, match="written in the code"):
            trace_channels(
                model,
                torch.zeros(2, 3),
                forward=lambda model, x, size=size: model[1](model[0](x).view(2, size)),
            )


class Bare(Tensor):
    """A subclass with nothing of its own."""


def test_a_subclass_as_example_input_changes_nothing() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 2, 1)
    )
    plain = trace_channels(network, images().float())
    assert trace_channels(network, images().float().as_subclass(Bare)).to_json() == plain.to_json()


def test_a_tensor_of_another_class_made_in_the_pass_is_refused() -> None:
    with pytest.raises(RequestError, match="a Bare is made in last: tensors of other classes"):
        trace_channels(Between(lambda x: x.as_subclass(Bare)), images().float())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_network_that_is_cut_inside_inference_can_be_trained(mode: Any) -> None:
    model: Any = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    x = torch.randn(3, 4)
    with mode():
        graph = trace_channels(model, torch.randn(3, 4))
        shrink(model, graph, {"0": [0, 1, 5]})
    assert_it_learns(model, x)
