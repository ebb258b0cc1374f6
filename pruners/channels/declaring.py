"""Groups of channels written down by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from harness.errors import RequestError, nearest
from pruners.channels.groups import ChannelGraph, ChannelGroup, Member
from pruners.channels.tensors import named_tensors

Axis = tuple[str, int] | tuple[str, int, Sequence[Sequence[int]]]
"""A tensor, one of its axes and, unless each position is a channel, the positions of each."""


def declare_channels(model: nn.Module, groups: Mapping[str, Sequence[Axis]]) -> ChannelGraph:
    """Return groups that were not traced but written down.

    ::

        declare_channels(model, {"hidden": [
            ("lstm.weight_hh", 0, [[j, h + j, 2 * h + j, 3 * h + j] for j in range(h)]),
            ("lstm.weight_hh", 1), ("out.weight", 1), ...
        ]})

    They can be cut and masked. Gates need to know where channels pass by, which only tracing finds.

    Args:
        model: whose parameters and buffers are named.
        groups: for each group all axes that its channels are on.

    Raises:
        RequestError: no such tensor or axis, a position that is out of range or in two groups, or
            axes of one group with different numbers of channels.
    """
    tensors = named_tensors(model)
    taken: dict[tuple[str, int], Tensor] = {}

    def member(group: str, axis: Axis) -> Member:
        name, dim, *positions = axis
        if name not in tensors:
            raise RequestError(f"group {group!r}: no tensor {name!r}{nearest(name, tensors)}")
        if not 0 <= dim < tensors[name].dim():
            raise RequestError(f"group {group!r}: {name!r} has no axis {dim}")
        size = tensors[name].shape[dim]
        index = torch.as_tensor(positions[0]) if positions else torch.arange(size)[:, None]
        used = taken.setdefault((name, dim), torch.zeros(size, dtype=torch.long))
        if index.min() < 0 or index.max() >= size:
            raise RequestError(f"group {group!r}: axis {dim} of {name!r} has {size} positions only")
        used += torch.bincount(index.flatten(), minlength=size)
        if used.max() > 1:
            raise RequestError(f"group {group!r}: a position on axis {dim} of {name!r} is taken")
        return Member(name, dim, index.sort(dim=1).values)

    def declared(name: str, axes: Sequence[Axis]) -> ChannelGroup:
        members = tuple(member(name, axis) for axis in axes)
        sizes = {f"{m.tensor}:{m.dim}": len(m.index) for m in members}
        if len(set(sizes.values())) != 1:
            raise RequestError(
                f"group {name!r}: its axes have different numbers of channels: {sizes}"
            )
        return ChannelGroup(name, len(members[0].index), members)

    return ChannelGraph(tuple(declared(name, axes) for name, axes in groups.items()))
