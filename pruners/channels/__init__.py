"""Channels: structured pruning that really shrinks any network.

`trace_channels` finds the slices of parameters that must live or die together, by one forward
pass in which every tensor axis carries labels. `shrink` cuts them out of parameters, buffers and
optimiser state. There is no code per architecture: a network is prunable when its operations have
rules (`pruners.channels.rules`), and an operation without one is an error that names it.

    graph = trace_channels(model, example_inputs)
    costs = channel_costs(model, graph, lambda: model(example_inputs))
    graph = shrink(model, graph, {"layer1.0.conv1": [0, 3, 7]}, optimiser)

What tracing cannot find, `declare_channels` takes by hand.

What helps: read sizes from tensors, or keep them in attributes of modules, where they are changed
along; no slices at positions written in the code; leave carried state out of the traced inputs and
outputs.
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
