"""Optimizer steps on surviving weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from harness.sparse_kernels import SparseSteps
from tests.harness.sparse_kernels.networks import Masks, pruned
from tests.harness.sparse_kernels.test_layers import perceptron

OPTIMIZERS: dict[str, Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]] = {
    "Adam": lambda parameters: torch.optim.Adam(parameters, 0.01, weight_decay=0.1),
    "AMSGrad": lambda parameters: torch.optim.Adam(parameters, 0.01, amsgrad=True),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, 0.01),
    "SGD": lambda parameters: torch.optim.SGD(parameters, 0.01, 0.9, weight_decay=0.1),
    "SGD without momentum": lambda parameters: torch.optim.SGD(parameters, 0.01),
    "one that is not elementwise": lambda parameters: torch.optim.Adafactor(parameters),
}


def train(
    model: nn.Module,
    masks: Masks,
    optimizer: torch.optim.Optimizer,
    step: Callable[[], object],
    dense: bool = False,
) -> None:
    for number in range(3):
        optimizer.zero_grad()
        torch.manual_seed(number)
        rows = torch.randn(6, 20, dtype=torch.double)
        model(rows).pow(2).sum().backward()
        if dense:
            for name, mask in masks.items():
                gradient = model.get_parameter(name).grad
                assert gradient is not None
                gradient.mul_(mask)
        step()
        for name, mask in masks.items():
            weight = model.get_parameter(name)
            if dense:
                weight.data.mul_(mask)
            assert not weight[~mask].any()


def pair(name: str, density: float = 0.2) -> Iterator[tuple[nn.Sequential, Masks, Any]]:
    for _ in range(2):
        torch.manual_seed(0)
        model = perceptron().double()
        yield model, pruned(model, density), OPTIMIZERS[name](model.parameters())


def assert_alike(one: Any, other: Any) -> None:
    (dense, _, dense_optimizer), (sparse, _, sparse_optimizer) = one, other
    for expected, found in zip(dense.parameters(), sparse.parameters(), strict=True):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        sparse_optimizer.state_dict()["state"], dense_optimizer.state_dict()["state"]
    )


@pytest.mark.parametrize("density", [0.0, 0.2, 0.6, 1.0])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_and_state_are_those_of_the_optimizer(name: str, density: float) -> None:
    one, other = pair(name, density)
    train(*one, one[2].step, dense=True)
    steps = SparseSteps(other[0], other[1])
    train(*other, lambda: steps.step(other[2]))
    assert_alike(one, other)


@pytest.mark.parametrize("name", ["Adam", "SGD"])
def test_sparse_and_dense_steps_may_alternate(name: str) -> None:
    one, other = pair(name)
    train(*one, one[2].step, dense=True)
    train(*one, one[2].step, dense=True)
    train(*other, other[2].step, dense=True)
    steps = SparseSteps(other[0], other[1])
    train(*other, lambda: steps.step(other[2]))
    assert_alike(one, other)
    train(*one, one[2].step, dense=True)
    train(*other, other[2].step, dense=True)
    assert_alike(one, other)


def test_a_layer_without_a_gradient_keeps_its_own_count_of_steps() -> None:
    one, other = pair("Adam")
    steps = SparseSteps(other[0], other[1])
    for (model, masks, optimizer), step in (
        (one, one[2].step),
        (other, lambda: steps.step(other[2])),
    ):
        first = model.get_parameter("0.weight")
        first.requires_grad = False
        optimizer.zero_grad()
        for name in ("2.weight", "5.weight"):
            weight = model.get_parameter(name)
            weight.grad = weight.detach() * masks[name]
        step()
        first.requires_grad = True
        train(model, masks, optimizer, step, dense=optimizer is one[2])
    assert_alike(one, other)


def test_parameters_of_the_optimizer_are_the_same_after_a_step_that_fails() -> None:
    model = perceptron()
    optimizer = torch.optim.Adam(model.parameters())
    before = list(optimizer.param_groups[0]["params"])
    model(torch.randn(6, 20)).sum().backward()
    optimizer.param_groups[0]["betas"] = None
    with pytest.raises(TypeError):
        SparseSteps(model, pruned(model, 0.2)).step(optimizer)
    assert all(
        one is other for one, other in zip(optimizer.param_groups[0]["params"], before, strict=True)
    )


def test_a_step_counts_as_a_change_of_the_weights() -> None:
    model = nn.Linear(20, 4)
    masks = pruned(model, 0.1)
    model(torch.randn(6, 20)).sum().backward()
    before = model.weight._version
    SparseSteps(model, masks).step(torch.optim.SGD(model.parameters(), 0.1))
    assert model.weight._version > before


def test_what_changes_between_steps_is_seen() -> None:
    one, other = pair("Adam")
    steps = SparseSteps(other[0], other[1])
    for (model, masks, optimizer), step in (
        (one, one[2].step),
        (other, lambda: steps.step(other[2])),
    ):
        train(model, masks, optimizer, step, dense=optimizer is one[2])
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2)
                optimizer.state[parameter]["exp_avg"].mul_(3)
        optimizer.load_state_dict(optimizer.state_dict())
        train(model, masks, optimizer, step, dense=optimizer is one[2])
    assert_alike(one, other)
