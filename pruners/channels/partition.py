"""From labels to groups: which positions of which axes belong to one channel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pruners.channels.expressions import Source
from pruners.channels.groups import ChannelGraph, ChannelGroup, KeptSize, Member, Site
from pruners.channels.kinds import kind_of
from pruners.channels.labels import Axes, Labels, LabelSets


@dataclass(frozen=True)
class Output:
    """The output of a module.

    Attributes:
        module: name of the module.
        axes: labels of its output, or of the first tensor of a tuple.
        before_norm: whether only normalisation reads it.
        is_norm: whether the module itself is a normalisation.
    """

    module: str
    axes: Axes
    before_norm: bool
    is_norm: bool


@dataclass(frozen=True)
class Partition:
    """The groups of a model, and which labels their channels are.

    Attributes:
        graph: the groups.
        channels: for each group a label of each of its channels.
    """

    graph: ChannelGraph
    channels: Mapping[str, Labels]


def partition(
    sets: LabelSets,
    labels: Mapping[str, Axes],
    outputs: Sequence[Output],
    numbers: Iterable[Source] = (),
) -> Partition:
    """Form the groups: channels that occur equally often on the same axes are in one group.

    Channels on a single axis are left out, because nothing depends on them. A position may belong
    to channels of several groups, such as an attention head and a feature within the heads.

    Args:
        sets: which labels are one channel, and which are pinned.
        labels: the labels of each parameter and buffer, by name.
        outputs: the outputs of modules, for the sites.
        numbers: the numbers that modules keep as sizes.
    """
    sets.settle()
    axes = {
        (name, dim): sets.channels(axis)
        for name, own in labels.items()
        for dim, axis in enumerate(own)
    }
    pinned = sets.pinned()
    numbers = list(numbers)
    channels = _numbered(
        [part for parts in axes.values() for part in parts],
        [part for number in numbers for part in sets.channels(number.axis())],
        list(pinned),
        sets.count,
    )
    members: list[list[Member]] = [[] for _ in channels.sizes]
    for (tensor, dim), parts in axes.items():
        for group, channel in channels.on_any(parts):
            positions = np.flatnonzero(channel >= 0)
            order = np.argsort(channel[positions], kind="stable")
            index = positions[order].reshape(channels.sizes[group], -1)
            members[group].append(Member(tensor, dim, torch.from_numpy(index)))
    after, before = _sites(sets, outputs, channels)
    tied = {group: _tied(sets, labels, own) for group, own in enumerate(members) if _is_tied(own)}
    names = dict(_unique_names({g: own for g, own in enumerate(members) if g not in tied}))
    kinds = sets.kinds()
    roots = {group: np.flatnonzero(channels.group == group) for group in names}
    roots = {group: own[np.argsort(channels.number[own])] for group, own in roots.items()}
    groups = (
        ChannelGroup(
            name,
            channels.sizes[group],
            tuple(members[group]),
            tuple(after[group]),
            tuple(before[group]),
            kind_of(kinds.get(root, frozenset()) for root in roots[group].tolist()),
        )
        for group, name in names.items()
    )
    roots_tied = {int(np.flatnonzero(channels.group == group)[0]): tied[group] for group in tied}
    graph = ChannelGraph(
        tuple(groups),
        _reasons(sets, labels, {**roots_tied, **pinned}),
        tuple(_sizes_kept(sets, numbers, channels, names)),
        _whole(kinds, pinned),
    )
    return Partition(graph, {name: roots[group] for group, name in names.items()})


def _whole(kinds: Mapping[int, Collection[str]], pinned: Mapping[int, str]) -> dict[str, str]:
    """Return why no channel of a kind can be removed: the reason of the first one."""
    stays: dict[str, str] = {}
    goes = set()
    for root, marks in kinds.items():
        if root in pinned:
            stays.setdefault(kind_of([marks]), pinned[root])
        else:
            goes.add(kind_of([marks]))
    return {kind: why for kind, why in stays.items() if kind not in goes}


def _is_tied(members: Sequence[Member]) -> bool:
    """Return whether a group is a single channel with several positions on each axis."""
    return all(member.index.shape[0] == 1 < member.index.shape[1] for member in members)


def _tied(sets: LabelSets, labels: Mapping[str, Axes], members: Sequence[Member]) -> str:
    """Return why channels could only be removed all at once, which would leave none."""
    positions = members[0].index[0].numpy()
    own = labels[members[0].tensor][members[0].dim][positions]
    if len(np.unique(sets.roots(own))) > 1:
        return "the only part of its axis"
    module = sets.tied_in(int(own[0]), int(own[-1]))
    return f"tied to the {len(own) - 1} others" + (f", in {module}" if module else "")


def _sizes_kept(
    sets: LabelSets, numbers: Iterable[Source], channels: _Channels, names: Mapping[int, str]
) -> Iterator[KeptSize]:
    """Yield the numbers that change with groups."""
    for number in numbers:
        found = {
            names[group]: torch.from_numpy(channel)
            for group, channel in channels.on_any(sets.channels(number.axis()))
            if group in names
        }
        for module, path in number.places if found else ():
            yield KeptSize(module, path, number.value, found)


@dataclass(frozen=True)
class _Channels:
    """The group of each root, its number in the group, and the sizes of the groups.

    Both arrays end with -1, the entry for positions that are no channel.
    """

    group: Labels
    number: Labels
    sizes: list[int]

    def on(self, roots: Labels) -> Iterator[tuple[int, Labels]]:
        """Yield each group on an axis, and the channel at each position or -1."""
        roots = np.maximum(roots, -1)
        group = self.group[roots]
        for found in np.unique(group[group >= 0]).tolist():
            yield found, np.where(group == found, self.number[roots], -1)

    def on_any(self, parts: Labels) -> Iterator[tuple[int, Labels]]:
        """Yield the same for an axis whose positions belong to several channels."""
        found: dict[int, Labels] = {}
        for part in parts:
            for group, channel in self.on(part):
                found[group] = np.maximum(found.get(group, channel), channel)
        yield from found.items()


def _numbered(
    axes: Sequence[Labels], numbers: Sequence[Labels], pinned: Sequence[int], count: int
) -> _Channels:
    """Number groups, and channels within groups, in the order of their first position.

    A number that a module keeps separates the channels that it counts from others: some of each
    remain.
    """
    roots = np.concatenate(axes)
    found, first = np.unique(roots[roots >= 0], return_index=True)
    in_order = found[np.argsort(first)]
    signature = _signatures(axes, numbers, count)
    signature[pinned] = -1
    group, number = np.full_like(signature, -1), np.full_like(signature, -1)
    sizes: list[int] = []
    for own in dict.fromkeys(signature[in_order].tolist()):
        if own >= 0:
            members = in_order[signature[in_order] == own]
            group[members], number[members] = len(sizes), np.arange(len(members))
            sizes.append(len(members))
    return _Channels(group, number, sizes)


def _signatures(axes: Sequence[Labels], numbers: Sequence[Labels], count: int) -> Labels:
    """Return a number for each root, equal for roots that occur equally often on the same axes.

    This is partition refinement: every axis splits the classes of its roots off from the others.
    Roots on fewer than two axes get -1, and so does one more entry at the end.
    """
    signature = np.zeros(count + 1, np.int64)
    occurrences = np.zeros(count + 1, np.int64)
    next_number = 1
    for place, axis in enumerate([*axes, *numbers]):
        roots, times = np.unique(axis, return_counts=True)
        keys = signature[roots] * (len(axis) + 1) + times
        _, inverse = np.unique(keys, return_inverse=True)
        signature[roots] = next_number + inverse
        next_number += len(roots)
        occurrences[roots] += place < len(axes)
    return np.where(occurrences > 1, signature, -1)


def _unique_names(groups: Mapping[int, Sequence[Member]]) -> Iterator[tuple[int, str]]:
    """Name each group after the first module among its tensors, or its first tensor."""
    seen: Counter[str] = Counter()
    for group, members in groups.items():
        modules = (member.tensor.rpartition(".")[0] for member in members)
        name = next(filter(None, modules), members[0].tensor)
        seen[name] += 1
        yield group, name if seen[name] == 1 else f"{name}#{seen[name]}"


def _sites(
    sets: LabelSets, outputs: Sequence[Output], channels: _Channels
) -> tuple[list[list[Site]], list[list[Site]]]:
    """Return the sites of each group after normalisation, and those before it."""
    after: list[list[Site]] = [[] for _ in channels.sizes]
    before: list[list[Site]] = [[] for _ in channels.sizes]
    seen = set()
    for output in outputs:
        for axis, labels in enumerate(output.axes):
            for group, channel in channels.on_any(sets.channels(labels)):
                if (group, output.module, axis) in seen:  # the module has been called before
                    continue
                seen.add((group, output.module, axis))
                site = Site(output.module, axis, torch.from_numpy(channel))
                if not output.before_norm:
                    after[group].append(site)
                if not output.is_norm:
                    before[group].append(site)
    return after, before


def _reasons(
    sets: LabelSets, labels: Mapping[str, Axes], pinned: Mapping[int, str]
) -> dict[str, str]:
    """Return why axes have pinned channels: the reason of the first one on each axis."""
    reasons = {}
    for name, own in labels.items():
        for dim, axis in enumerate(own):
            roots = sets.roots(axis).tolist()
            why = next((pinned[root] for root in roots if root in pinned), None)
            if why is not None:
                reasons[f"{name}:{dim}"] = why
    return reasons
