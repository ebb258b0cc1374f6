"""The passes that a criterion takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.costs.memory import PeakMemory
from harness.pruning.scoring_cost import PassCounter, Passes
from harness.scoring import Criterion, Scoring
from pruners import criteria
from pruners.functional_criteria import NTKSAP, Force, ProsPr
from pruners.weights import Weights
from tests.helpers.regression import weights_of
from tests.helpers.workbench import Workbench

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


@pytest.mark.parametrize(
    ("criterion", "passes"),
    [
        (Force(0.5, rounds=3), Passes(3 * 2, 3 * 2)),
        # A pass for each step, two for the loss, and one more with its second derivative for each
        # step on the way back.
        (ProsPr(steps=4), Passes(4 + 2 + 4, 4 + 2 + 2 * 4)),
        (NTKSAP(), Passes(2, 2)),
    ],
)
def test_passes_at_other_weights_are_counted_too(criterion: Criterion, passes: Passes) -> None:
    def network() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))

    batches = [(torch.ones(2, 4), torch.zeros(2, 1))] * 2
    scoring = weights_of(network(), batches, new=network)
    assert scoring.network is not None
    with PassCounter() as counter:
        criterion(replace(scoring, network=scoring.network.counted(counter.counted)))
    assert counter.data == passes


def test_the_scoring_of_a_run_counts_them(bench: Workbench) -> None:
    begun = bench.begin()
    begun.run.prune(Weights, Force(0.5, rounds=3), 0.5)
    scoring = begun.journal.entries[-1].event["scoring"]
    assert scoring["passes"] == {"forward": 15, "backward": 15}


def test_the_memory_of_a_criterion_is_measured_once(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measuring it slows the steps that follow, and gradual methods score hundreds of times."""
    begun = bench.begin()
    begun.run.prune(Weights, criteria.snip, 0.5)
    collected: list[PeakMemory] = []
    monkeypatch.setattr(PeakMemory, "_give_back", lambda memory: collected.append(memory))
    begun.run.prune(Weights, criteria.snip, 0.6, measured=False)
    assert not collected
    begun.run.prune(Weights, criteria.magnitude, 0.7, measured=False)
    assert collected


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
