"""What one channel costs, for budgets in parameters or operations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from harness.costs.operations import operations_by_weight
from harness.prunable import prunable_weights
from pruners.channels.groups import ChannelGraph, ChannelGroup


@dataclass(frozen=True)
class ChannelCosts:
    """What the model loses with one channel of a group, while all the others are there."""

    parameters: int
    macs: int
    """Multiply-accumulates of the prunable layers; of flattened or grouped layers, the mean."""


def channel_costs(
    model: nn.Module, graph: ChannelGraph, run: Callable[[], object]
) -> dict[str, ChannelCosts]:
    """Return for each group what one of its channels costs: within a group all cost the same.

    Args:
        model: the model that was traced, in evaluation mode.
        graph: its groups.
        run: calls the model, usually on one sample.
    """
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    weights = prunable_weights(model)
    operations = operations_by_weight(model, run)

    def costs(group: ChannelGroup) -> ChannelCosts:
        lost = _lost(model, group)
        macs = sum(operations[name] * lost.get(name, 0) / sizes[name] for name in weights)
        return ChannelCosts(sum(lost.values()), round(macs))

    return {group.name: costs(group) for group in graph.groups}


def _lost(model: nn.Module, group: ChannelGroup) -> dict[str, int]:
    """Return how many entries each parameter loses with one channel."""
    parameters = dict(model.named_parameters())
    shapes = {
        m.tensor: list(parameters[m.tensor].shape) for m in group.members if m.tensor in parameters
    }
    for member in group.members:
        if member.tensor in shapes:
            shapes[member.tensor][member.dim] -= member.index.shape[1]
    return {name: parameters[name].numel() - math.prod(shape) for name, shape in shapes.items()}
