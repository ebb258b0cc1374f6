"""Channels: structured pruning that makes any network smaller.

`trace_channels` finds the slices of parameters that can only be removed together, by a forward
pass in which every tensor axis carries labels. `shrink` removes them from parameters, buffers and
optimizer state. No code depends on an architecture: a network can be pruned if its operations
have rules (`pruners.channels.rules`). An operation without a rule is an error that names it.

    graph = trace_channels(model, example_inputs)
    costs = channel_costs(model, graph, lambda: model(example_inputs))
    graph = shrink(model, graph, {"layer1.0.conv1": [0, 3, 7]}, optimiser)

Groups that tracing cannot find can be declared by hand with `declare_channels`.

A model has more removable channels if it reads sizes from tensors or from attributes of modules,
which `shrink` updates; if it does not slice at positions written in the code; and if recurrent
state is left out of the traced inputs and outputs.
"""

from __future__ import annotations

from pruners.channels.composition import ChannelCosts, channel_costs
from pruners.channels.gating import Gates, masked, verify_shrink
from pruners.channels.groups import (
    ChannelGraph,
    ChannelGroup,
    Keep,
    Member,
    Site,
    compose,
    declare_channels,
)
from pruners.channels.labelling import UnknownOperation
from pruners.channels.rules import Rule
from pruners.channels.shrinking import shrink
from pruners.channels.tracing import trace_channels

__all__ = [
    "ChannelCosts",
    "ChannelGraph",
    "ChannelGroup",
    "Gates",
    "Keep",
    "Member",
    "Rule",
    "Site",
    "UnknownOperation",
    "channel_costs",
    "compose",
    "declare_channels",
    "masked",
    "shrink",
    "trace_channels",
    "verify_shrink",
]
