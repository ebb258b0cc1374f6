"""Networks with squared errors on a few samples: all of a task that criteria look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from harness.pruning.event import scoring_of
from harness.scoring import Scoring
from harness.task import Task
from pruners.weights import Weights

Batch = tuple[Tensor, Tensor]
"""Inputs and targets."""


@dataclass(frozen=True)
class Regression:
    """Half of the summed squared errors of a network's outputs.

    Args:
        new: builds a new network.
    """

    new: Callable[[], nn.Module]

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return torch.device("cpu")

    def model(self) -> nn.Module:
        """Return a new network."""
        return self.new()

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the outputs, a row for each sample."""
        outputs: Tensor = model(batch[0])
        return outputs.flatten(1)

    def scoring_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of a batch."""
        errors: Tensor = model(batch[0]) - batch[1]
        return errors.square().sum() / 2


def weights_of(
    model: nn.Module,
    batches: Sequence[Batch],
    new: Callable[[], nn.Module] | None = None,
    units: Weights | None = None,
) -> Scoring:
    """Return the scoring of a network's weights on batches of inputs and targets.

    Args:
        model: the network.
        batches: the scoring batches.
        new: builds another network, for criteria that draw one.
        units: the weights, some of which may have been removed.
    """
    task = cast(Task, Regression(new or nn.Module))
    generator = torch.Generator().manual_seed(0)
    with scoring_of(task, model, units or Weights(model), batches, generator) as scoring:
        return scoring


def line(weights: Sequence[float]) -> nn.Linear:
    """Return a linear layer with one output, these weights in double precision, and no bias."""
    layer = nn.Linear(len(weights), 1, bias=False, dtype=torch.float64)
    layer.weight.data[:] = torch.tensor(weights, dtype=torch.float64)
    return layer


def batch(inputs: Sequence[Sequence[float]], targets: Sequence[float]) -> Batch:
    """Return samples of several inputs and one target each, in double precision."""
    rows = torch.tensor(inputs, dtype=torch.float64)
    return rows, torch.tensor(targets, dtype=torch.float64).unsqueeze(1)
