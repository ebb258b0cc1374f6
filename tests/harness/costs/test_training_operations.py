"""The multiply-accumulates of training, against numbers worked out by hand."""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.costs.training_operations import TrainingOperations, Uncountable, Work, elements_left
from harness.task import Task

BATCH = 5
FIRST, SECOND = BATCH * 6 * 10, BATCH * 10 * 2
"""Multiply-accumulates of the layers of `network` in a forward pass."""


class Squares:
    """Stands in for a task: the loss is the mean square of the outputs."""

    def scoring_loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Return the mean square of the outputs."""
        return cast(Tensor, model(batch)).square().mean()

    def flow(self, model: nn.Module) -> Tensor:
        """Return the summed outputs for a row of ones."""
        return cast(Tensor, model(torch.ones(1, 6))).sum()


def operations() -> TrainingOperations:
    return TrainingOperations(cast(Task, Squares()), contextlib.nullcontext)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 2))


def forward_and_backward(model: nn.Module, **masks: Tensor) -> tuple[int, int]:
    work = operations().step(model, torch.randn(BATCH, 6))
    left = elements_left(model, {name.replace("__", "."): mask for name, mask in masks.items()})
    return work.forward(left), work.backward(left)


def test_the_backward_pass_is_twice_the_forward_pass_less_the_gradient_of_the_data() -> None:
    assert forward_and_backward(network()) == (FIRST + SECOND, FIRST + 2 * SECOND)


def test_masked_weights_count_in_no_pass() -> None:
    half = torch.zeros(10, 6, dtype=torch.bool)
    half[:5] = True
    found = forward_and_backward(network(), **{"0__weight": half})
    assert found == (FIRST // 2 + SECOND, FIRST // 2 + 2 * SECOND)


def test_a_network_that_is_cut_costs_what_its_small_layers_cost() -> None:
    small = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    first, second = BATCH * 6 * 4, BATCH * 4 * 2
    assert forward_and_backward(small) == (first + second, first + 2 * second)


def test_a_frozen_weight_needs_no_gradient_but_passes_one_on() -> None:
    model = network()
    model[3].weight.requires_grad_(False)
    assert forward_and_backward(model) == (FIRST + SECOND, FIRST + SECOND)
    model[0].weight.requires_grad_(False)
    assert forward_and_backward(model) == (FIRST + SECOND, SECOND)  # for BatchNorm's scale


def test_nothing_is_passed_back_beyond_the_first_parameter_that_learns() -> None:
    model = network()
    for parameter in (*model[0].parameters(), *model[1].parameters()):
        parameter.requires_grad_(False)
    assert forward_and_backward(model) == (FIRST + SECOND, SECOND)


def test_what_is_computed_without_gradients_has_no_backward_pass() -> None:
    model = network()

    def loss() -> Tensor:
        with torch.no_grad():
            target = model(torch.randn(BATCH, 6))
        return F.mse_loss(model(torch.randn(BATCH, 6)), target)

    work, left = Work.of(model, loss), elements_left(model, {})
    assert work.forward(left) == 2 * (FIRST + SECOND)
    assert work.backward(left) == FIRST + 2 * SECOND


def test_gradients_at_removed_places_count_in_full_where_they_are_asked_for() -> None:
    model = network()
    none_left = {"0.weight": 0, "3.weight": 20}
    work = operations().step(model, torch.randn(BATCH, 6))
    assert work.backward(none_left) == 2 * SECOND
    assert work.backward(none_left, dense=elements_left(model, {})) == FIRST + 2 * SECOND


class Attention(nn.Module):
    """Products of activations, with each other and with weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(6, width, bias=False)

    def forward(self, rows: Tensor) -> Tensor:
        """Return the similarity of all rows (rows, rows)."""
        projected: Tensor = self.query(rows)
        return projected @ projected.detach().T


def test_products_of_activations_are_counted_with_their_gradients() -> None:
    found = forward_and_backward(Attention(4))
    projection, similarity = BATCH * 6 * 4, BATCH * BATCH * 4
    assert found == (projection + similarity, projection + similarity)


def test_products_of_activations_are_counted_again_when_the_network_is_cut() -> None:
    counting, rows = operations(), torch.randn(BATCH, 6)
    for width in (4, 2):
        model = Attention(width)
        work = counting.step(model, rows)
        assert work.forward(elements_left(model, {})) == BATCH * 6 * width + BATCH**2 * width


def test_a_smaller_batch_has_fewer_operations() -> None:
    counting, model = operations(), network()
    left = elements_left(model, {})
    found = [counting.step(model, torch.randn(size, 6)).forward(left) for size in (5, 2)]
    assert found == [FIRST + SECOND, (FIRST + SECOND) * 2 // 5]


def test_a_pruning_needs_no_further_evaluation_of_the_loss() -> None:
    seen = []

    class Counted(Squares):
        def scoring_loss(self, model: nn.Module, batch: Tensor) -> Tensor:
            seen.append(len(batch))
            return super().scoring_loss(model, batch)

    counting = TrainingOperations(cast(Task, Counted()), contextlib.nullcontext)
    for width in (10, 4):
        model = nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 2))
        forward = counting.step(model, torch.randn(BATCH, 6)).forward(elements_left(model, {}))
        assert forward == BATCH * width * (6 + 2)
    assert seen == [BATCH]


def test_a_pass_of_synflow_counts_as_that_of_one_sample() -> None:
    model = network().eval()
    left = elements_left(model, {})
    assert operations().flow(model).forward(left) == (FIRST + SECOND) // BATCH


def test_counting_leaves_no_trace() -> None:
    model = nn.Sequential(*network(), nn.Dropout())
    buffers = {name: (buffer, buffer._version) for name, buffer in model.named_buffers()}
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    model.eval()
    operations().step(model, torch.randn(BATCH, 6, generator=torch.Generator()))
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())
    for name, buffer in model.named_buffers():
        assert buffers[name] == (buffer, buffer._version)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_counting_is_the_work_of_an_instrument() -> None:
    inside: list[bool] = []

    @contextmanager
    def instrument() -> Iterator[None]:
        inside.append(True)
        yield
        inside.pop()

    class Watched(Squares):
        def scoring_loss(self, model: nn.Module, batch: Any) -> Tensor:
            assert inside
            return super().scoring_loss(model, batch)

    TrainingOperations(cast(Task, Watched()), instrument).step(network(), torch.randn(BATCH, 6))


def test_a_network_that_torch_cannot_count_is_refused_with_its_reason() -> None:
    class Broken(Squares):
        def scoring_loss(self, model: nn.Module, batch: Any) -> Tensor:
            raise NotImplementedError("no kernel\nfor this")

    counting = TrainingOperations(cast(Task, Broken()), contextlib.nullcontext)
    with pytest.raises(Uncountable, match=r"cannot count the operations: no kernel$"):
        counting.step(network(), torch.randn(BATCH, 6))


def test_counting_keeps_no_activations() -> None:
    """A step keeps them for its backward pass, and those of a large network fill the memory."""
    kept: list[bool] = []

    class Watched(Squares):
        def scoring_loss(self, model: nn.Module, batch: Any) -> Tensor:
            hidden = model(batch)
            seen = weakref.ref(hidden)
            loss: Tensor = hidden.exp().sum() + hidden.square().sum()
            del hidden
            kept.append(seen() is not None)
            return loss

    model, rows = network(), torch.randn(BATCH, 6)
    TrainingOperations(cast(Task, Watched()), contextlib.nullcontext).step(model, rows)
    Watched().scoring_loss(model, rows)
    assert kept == [False, True]
