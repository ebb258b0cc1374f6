"""The passes that a criterion takes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.pruning.scoring_cost import PassCounter, Passes
from harness.scoring import Scoring
from pruners import criteria

Losses = list[Callable[[], Tensor]]


def counted(counter: PassCounter) -> tuple[nn.Linear, Losses]:
    """Return a layer, and its losses on three batches, whose passes are counted."""
    layer = nn.Linear(4, 3)

    def loss(number: int) -> Tensor:
        inputs = torch.randn(2, 4, generator=torch.Generator().manual_seed(number))
        return F.cross_entropy(layer(inputs), torch.tensor([0, 1]))

    return layer, [counter.counted(partial(loss, number)) for number in range(3)]


def by_gradient(layer: nn.Linear, losses: Losses) -> None:
    for loss in losses:
        torch.autograd.grad(loss(), layer.weight)


def by_sum(layer: nn.Linear, losses: Losses) -> None:
    torch.autograd.grad(torch.stack([loss() for loss in losses]).sum(), layer.weight)


def by_backward(layer: nn.Linear, losses: Losses) -> None:
    for loss in losses:
        loss().backward()


def by_function(layer: nn.Linear, losses: Losses) -> None:
    for loss in losses:
        torch.autograd.backward(loss())


def by_hessian(layer: nn.Linear, losses: Losses) -> None:
    for loss in losses:
        (gradient,) = torch.autograd.grad(loss(), layer.weight, create_graph=True)
        torch.autograd.grad(gradient.square().sum(), layer.weight)


def by_values(layer: nn.Linear, losses: Losses) -> None:
    with torch.no_grad():
        losses[0]()


@pytest.mark.parametrize(
    ("score", "passes"),
    [
        (by_gradient, Passes(3, 3)),
        (by_sum, Passes(3, 3)),
        (by_backward, Passes(3, 3)),
        (by_function, Passes(3, 3)),
        (by_hessian, Passes(3, 6)),
        (by_values, Passes(1, 0)),
    ],
)
def test_passes_are_counted_however_torch_is_asked(
    score: Callable[[nn.Linear, Losses], None], passes: Passes
) -> None:
    counter = PassCounter()
    layer, losses = counted(counter)
    with counter:
        score(layer, losses)
    assert (counter.data, counter.flow) == (passes, Passes())


def test_a_pass_without_data_is_counted_apart() -> None:
    counter = PassCounter()
    layer = nn.Linear(4, 3)
    flow = counter.counted(lambda: layer(torch.ones(4)).sum(), of_data=False)
    with counter:
        torch.autograd.grad(flow(), layer.weight)
    assert (counter.data, counter.flow) == (Passes(), Passes(1, 1))


def test_counting_changes_no_score() -> None:
    def scores(counter: PassCounter) -> Tensor:
        torch.manual_seed(0)
        layer, losses = counted(counter)
        variables = {"weight": layer.weight}
        alive = {"weight": torch.ones(3, 4, dtype=torch.bool)}
        generator = torch.Generator()
        return criteria.crop(Scoring(variables, alive, losses, NotImplemented, generator))["weight"]

    without = scores(PassCounter())
    with PassCounter() as counter:
        counted_scores = scores(counter)
    assert torch.equal(counted_scores, without)
