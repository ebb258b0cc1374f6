"""A plug-in: methods that use everything that a run can do, to be resumed anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from harness.prunable import prunable_weights
from harness.registry import pruner
from harness.run import Run
from harness.units import Units
from pruners.channels.units import Channels
from pruners.criteria import magnitude, snip
from pruners.training import GroupSparsity, SmallestFilters, SquaredTaylor
from pruners.triggers import at_epoch, mask_distance
from pruners.weights import Weights


@dataclass
class SummedGradients:
    """Sums the gradients' magnitudes."""

    units: ClassVar = Weights
    _sums: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def after_backward(self, model: nn.Module, units: Units) -> None:
        for name, weight in prunable_weights(model).items():
            assert weight.grad is not None
            self._sums[name] = self._sums.get(name, torch.tensor(0.0)) + weight.grad.abs()

    def scores(self) -> dict[str, Tensor]:
        return self._sums

    def state(self) -> dict[str, Any]:
        return dict(self._sums)

    def restore(self, state: Mapping[str, Any]) -> None:
        self._sums = dict(state)


def small(model: nn.Module) -> Tensor:
    """Return a penalty on all weights."""
    return 1e-3 * torch.stack([w.square().sum() for w in prunable_weights(model).values()]).sum()


def last_layer(model: nn.Module) -> list[str]:
    """Return the names of the parameters of the last layer."""
    return [name for name, _ in model.named_parameters() if name.startswith("4.")]


@pruner("watching", title="Watching", exceeds_budget=True)
def watching(run: Run) -> None:
    """Train, watch, prune, snapshot, rewind and be triggered."""
    ticket = run.snapshot()
    watched = run.train(epochs=1, watch=SummedGradients(), penalty=small)
    assert watched.scores is not None
    run.prune(Weights, watched.scores, run.sparsity / 2)
    run.rewind(ticket)
    run.train(steps=3, only=last_layer)
    fired = run.train(until=at_epoch(2), at_most=3).fired
    run.prune(Weights, magnitude, run.sparsity if fired else 0.1)
    run.train()


@pruner("cutting", title="Cutting", group="structured", exceeds_budget=True)
def cutting(run: Run) -> None:
    """Cut channels, penalise and watch them, and rewind to when the network was larger."""
    run.train(steps=7, penalty=GroupSparsity(1e-3))
    large = run.snapshot()
    run.prune(Channels, snip, run.sparsity / 2)
    run.train(epochs=1)
    smaller = run.snapshot()
    watched = run.train(steps=5, watch=SquaredTaylor(), penalty=SmallestFilters(0.5, 0.1))
    assert watched.scores is not None
    run.prune(Channels, watched.scores, run.sparsity)
    run.train(epochs=1)
    run.rewind(smaller)
    settled = mask_distance(Channels, snip, 0.85, threshold=2.0, epochs=2)
    run.train(until=settled, at_most=2)
    run.rewind(large)
    run.train()
