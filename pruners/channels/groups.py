"""Coupled channels as plain data, traced or declared by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import RequestError, nearest
from pruners.channels.kinds import OTHER
from pruners.channels.state import named_tensors

Keep = Mapping[str, Tensor | Sequence[int]]
"""The channels to keep, by the names of their groups. Groups that are not named stay whole."""


@dataclass(frozen=True, eq=False)
class Member:
    """The part of one axis of a parameter or buffer that belongs to a group.

    Attributes:
        tensor: name of the parameter or buffer, as in ``model.named_parameters()``.
        dim: the axis.
        index: positions on the axis (channels, positions per channel), sorted in each row. A
            channel has several positions behind a flattened feature map, in the gates of an LSTM,
            and in grouped convolutions.
    """

    tensor: str
    dim: int
    index: Tensor = field(repr=False)


@dataclass(frozen=True, eq=False)
class Site:
    """An axis of a module's output that carries channels of a group.

    Attributes:
        module: name of the module. If it returns a tuple, the first tensor is meant.
        axis: the axis of its output.
        channel: the channel at each position (positions,), or -1 if the position is not the
            group's.
    """

    module: str
    axis: int
    channel: Tensor = field(repr=False)


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels that can be removed one by one, each from all members at once.

    Attributes:
        name: unique in its graph: the first of its modules, numbered from the second group on.
        size: number of channels.
        members: what is cut.
        sites: where a factor of zero amounts to removal: after normalisation, if there is any.
        sites_before: the same, before normalisation.
        kind: what the channels are to the network, one of `pruners.channels.kinds.KINDS`.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    sites: tuple[Site, ...] = ()
    sites_before: tuple[Site, ...] = ()
    kind: str = OTHER


Place = tuple[str, tuple[str | int, ...]]
"""Where a number is kept: the name of a module, an attribute, and the keys within it."""


@dataclass(frozen=True, eq=False)
class KeptSize:
    """An integer that a module keeps as the size of an axis of channels.

    Attributes:
        module: name of the module.
        path: the name of the attribute, and the keys within it if it is a list or a dictionary.
        size: the value.
        channels: for each group on the axis the channel at each position, or -1 if the position
            is not the group's.
    """

    module: str
    path: tuple[str | int, ...]
    size: int
    channels: Mapping[str, Tensor] = field(repr=False)


@dataclass(frozen=True, eq=False)
class ChannelGraph:
    """All groups of a model.

    Attributes:
        groups: in the order of the model's parameters.
        pinned: why an axis has channels that cannot be removed, by "tensor:dim".
        sizes_kept: the numbers kept by modules that change with the groups.
        whole: why no channel of a kind can be removed, such as attention heads.
    """

    groups: tuple[ChannelGroup, ...]
    pinned: Mapping[str, str] = field(default_factory=dict)
    sizes_kept: tuple[KeptSize, ...] = ()
    whole: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> ChannelGroup:
        """Return the group of a name."""
        return {group.name: group for group in self.groups}[name]

    def __str__(self) -> str:
        """Return a line for each group: its name, number of channels, kind, and axes."""
        return "\n".join(
            f"{group.name}: {group.size} {group.kind} on "
            + ", ".join(f"{member.tensor}:{member.dim}" for member in group.members)
            for group in self.groups
        )

    def sizes(self) -> dict[str, int]:
        """Return the number of channels in each group."""
        return {group.name: group.size for group in self.groups}

    def kinds(self) -> dict[str, str]:
        """Return the kind of each group."""
        return {group.name: group.kind for group in self.groups}

    def to_json(self) -> str:
        """Return the graph as a JSON document."""
        groups = [
            {
                "name": group.name,
                "size": group.size,
                "members": [[m.tensor, m.dim, m.index.tolist()] for m in group.members],
                "sites": _site_lists(group.sites),
                "sites_before": _site_lists(group.sites_before),
                "kind": group.kind,
            }
            for group in self.groups
        ]
        sizes = [
            [kept.module, kept.path, kept.size, {g: c.tolist() for g, c in kept.channels.items()}]
            for kept in self.sizes_kept
        ]
        return json.dumps(
            {
                "groups": groups,
                "pinned": dict(self.pinned),
                "sizes_kept": sizes,
                "whole": dict(self.whole),
            }
        )

    @staticmethod
    def from_json(document: str) -> ChannelGraph:
        """Return the graph of a document that `to_json` wrote."""
        content = json.loads(document)
        return ChannelGraph(
            tuple(map(_read_group, content["groups"])),
            content["pinned"],
            tuple(
                KeptSize(module, tuple(path), size, {g: torch.tensor(c) for g, c in own.items()})
                for module, path, size, own in content.get("sizes_kept", [])
            ),
            content.get("whole", {}),
        )


def compose(first: Keep, second: Keep) -> dict[str, Tensor]:
    """Return the channels kept after two removals, numbered as before the first.

    Args:
        first: the channels kept by the first removal.
        second: the channels kept by the second, numbered as after the first.
    """
    composed = {name: torch.as_tensor(kept) for name, kept in {**second, **first}.items()}
    for name in first.keys() & second.keys():
        composed[name] = composed[name][torch.as_tensor(second[name])]
    return composed


def _site_lists(sites: tuple[Site, ...]) -> list[list[Any]]:
    return [[site.module, site.axis, site.channel.tolist()] for site in sites]


def _read_group(content: Mapping[str, Any]) -> ChannelGroup:
    return ChannelGroup(
        content["name"],
        content["size"],
        tuple(Member(name, dim, torch.tensor(index)) for name, dim, index in content["members"]),
        _read_sites(content["sites"]),
        _read_sites(content["sites_before"]),
        content.get("kind", OTHER),
    )


def _read_sites(sites: Sequence[Any]) -> tuple[Site, ...]:
    return tuple(Site(name, axis, torch.tensor(channel)) for name, axis, channel in sites)


# Groups declared by hand

Axis = tuple[str, int] | tuple[str, int, Sequence[Sequence[int]]]
"""A tensor, one of its axes and, unless each position is one channel, the positions of each."""


def declare_channels(model: nn.Module, groups: Mapping[str, Sequence[Axis]]) -> ChannelGraph:
    """Return groups that were declared by hand instead of traced.

    ::

        declare_channels(model, {"hidden": [
            ("lstm.weight_hh", 0, [[j, h + j, 2 * h + j, 3 * h + j] for j in range(h)]),
            ("lstm.weight_hh", 1), ("out.weight", 1), ...
        ]})

    Such groups can be cut and masked, but have no gates: only tracing finds their sites.

    Args:
        model: the model whose parameters and buffers are named.
        groups: for each group all axes that carry its channels.

    Raises:
        RequestError: a tensor or an axis does not exist, a position is out of range or in two
            groups, or the axes of a group have different numbers of channels.
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
            raise RequestError(f"group {group!r}: axis {dim} of {name!r} has only {size} positions")
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
