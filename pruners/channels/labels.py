"""Labels on tensor axes: which indices must live or die together.

Every axis of every tensor carries an array with one label per index. A label is a non-negative
number; labels that have been united stand for one channel. Two negative values say that an index
belongs to no channel: `FREE` where a tensor takes whatever size it is given, `FIXED` where its
size comes from outside and cannot change.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from pruners.channels.sizes import Call, Width

Labels = npt.NDArray[np.int64]
Axes = list[Labels]

FREE = -1
FIXED = -2


def free(size: int) -> Labels:
    """Return the labels of an axis that adapts."""
    return np.full(size, FREE)


def fixed(size: int) -> Labels:
    """Return the labels of an axis that comes from outside."""
    return np.full(size, FIXED)


def constant(size: int) -> Labels:
    """Return the labels of an axis whose size no channel decides; a single place adapts."""
    return fixed(size) if size > 1 else free(size)


def is_tracked(labels: Labels) -> bool:
    """Tell whether any index belongs to a channel."""
    return bool((labels >= 0).any())


def either(first: Labels, second: Labels) -> Labels:
    """Return the label where one has one, else `FIXED` where one is, else `FREE`."""
    tracked = (first >= 0) | (second >= 0)
    return np.where(tracked, np.maximum(first, second), np.minimum(first, second))


class LabelSets:
    """Which labels have been united, and which have been pinned.

    Unions are collected as arrays of pairs and solved all at once, as connected components.
    """

    def __init__(self) -> None:
        self._count = 0
        self._pairs: list[tuple[Labels, Labels]] = []
        self._unions: list[tuple[Labels, Labels, str]] = []
        self._pins: list[tuple[Labels, str]] = []
        self._roots: Labels | None = None
        self._starts: list[int] = []
        self._owners: list[str] = []

    def fresh(self, size: int, owner: str = "") -> Labels:
        """Return labels that have never been used, for an axis of a tensor with a name."""
        self._roots = None
        self._starts.append(self._count)
        self._owners.append(owner)
        self._count += size
        return np.arange(self._count - size, self._count)

    def owner(self, labels: Labels) -> str:
        """Return the name of the first tensor that is coupled with the first of the labels."""
        first = self.roots(labels[labels >= 0])[0]
        return self._owners[int(np.searchsorted(self._starts, first, side="right")) - 1]

    def unite(self, first: Labels, second: Labels, module: str = "") -> None:
        """Make the labels of two arrays of one shape the same, position by position.

        Args:
            first: the one.
            second: the other.
            module: whose forward is running, for `tied_in`.
        """
        differ = (first >= 0) & (second >= 0) & (first != second)
        if differ.any():
            self._roots = None
            self._pairs.append((first[differ], second[differ]))
            self._unions.append((*self._pairs[-1], module))

    def tied_in(self, first: int, second: int) -> str:
        """Return the module whose forward has made two labels the same, in the end."""
        fewest, most = 1, len(self._unions)
        while fewest < most:
            middle = (fewest + most) // 2
            pairs = [(one, other) for one, other, _ in self._unions[:middle]]
            roots = self._components(pairs)
            if roots[first] == roots[second]:
                most = middle
            else:
                fewest = middle + 1
        return self._unions[most - 1][2]

    def pin(self, labels: Labels, reason: str) -> None:
        """Exclude the channels of these labels from removal."""
        tracked = labels[labels >= 0]
        if tracked.size:
            self._pins.append((tracked, reason))

    def roots(self, labels: Labels) -> Labels:
        """Return one number per channel in place of its many labels; negative ones stay."""
        if self._roots is None:
            self._roots = self._solve()
        return np.where(labels >= 0, self._roots[labels], labels) if self._count else labels

    def pinned(self) -> dict[int, str]:
        """Return the first reason for which a channel, by its root, was pinned."""
        reasons: dict[int, str] = {}
        for labels, reason in self._pins:
            for root in np.unique(self.roots(labels)).tolist():
                reasons.setdefault(root, reason)
        return reasons

    def _solve(self) -> Labels:
        """Return for each label the smallest one it is united with, and forget needless pairs."""
        if not self._pairs:
            return np.arange(self._count)
        components = self._components(self._pairs)
        _, smallest, component = np.unique(components, return_index=True, return_inverse=True)
        roots: Labels = smallest[component].astype(np.int64)
        united = np.flatnonzero(roots != np.arange(self._count))
        self._pairs = [(united, roots[united])] if united.size else []
        return roots

    def _components(self, pairs: Sequence[tuple[Labels, Labels]]) -> Labels:
        """Return a number for each label: equal where pairs connect labels."""
        first, second = (np.concatenate(side) for side in zip(*pairs, strict=True))
        graph = coo_array(
            (np.ones(len(first), np.int8), (first, second)), shape=(self._count, self._count)
        )
        components: Labels = connected_components(graph, directed=False)[1]
        return components


class LabelledTensors:
    """The labels of all tensors of one forward pass: what rules read and write.

    Attributes:
        sets: which labels are united or pinned.
        call: the function that the model's code is calling, for the sizes it asks for.
        module: name of the module whose forward is running.
    """

    def __init__(self) -> None:
        self.sets = LabelSets()
        self.call = Call()
        self.module = ""
        self._axes: dict[int, Axes] = {}
        self._alive: list[Tensor] = []
        self._uses: dict[int, list[bool]] = {}
        self._pins_on_use: dict[int, tuple[Labels, str]] = {}

    def __getitem__(self, tensor: Tensor) -> Axes:
        """Return the labels of a tensor, one array per axis.

        A tensor that was not made during the pass comes from outside: its size cannot change.
        """
        if id(tensor) not in self._axes:
            self[tensor] = [fixed(size) for size in tensor.shape]
        return self._axes[id(tensor)]

    def __setitem__(self, tensor: Tensor, axes: Axes) -> None:
        sizes = [len(axis) for axis in axes]
        assert sizes == list(tensor.shape), f"labels for {sizes}, but a tensor of {tensor.shape}"
        self._axes[id(tensor)] = axes
        # What is labelled must stay alive: its id is its name.
        self._alive.append(tensor)

    def shape(self, tensor: Tensor) -> torch.Size:
        """Return the shape of a tensor, whose labelled sizes remember their axes."""
        return torch.Size(
            Width(size, axis.reshape(1, -1), self.sets) if is_tracked(axis) else size
            for size, axis in zip(tensor.shape, self[tensor], strict=True)
        )

    def used(self, tensors: Iterable[Tensor], *, by_norm: bool) -> None:
        """Note that an operation reads these tensors, and whether it normalises the first."""
        for position, tensor in enumerate(tensors):
            if id(tensor) in self._pins_on_use:
                self.pin(*self._pins_on_use.pop(id(tensor)))
            self._uses.setdefault(id(tensor), []).append(by_norm and position == 0)

    def is_used(self, tensor: Tensor) -> bool:
        """Tell whether any operation has read the tensor."""
        return id(tensor) in self._uses

    def is_only_normalised(self, tensor: Tensor) -> bool:
        """Tell whether a normalisation is all that has read the tensor."""
        return all(self._uses.get(id(tensor), [False]))

    def pin(self, labels: Labels, reason: str) -> None:
        """Exclude channels from removal.

        Args:
            labels: any of their labels; others are ignored.
            reason: why, for the user; the module is added.
        """
        self.sets.pin(labels, f"{reason}, in {self.module}" if self.module else reason)

    def pin_on_use(self, tensor: Tensor, labels: Labels, reason: str) -> None:
        """Exclude channels from removal if any operation reads a tensor, or it is returned."""
        self._pins_on_use[id(tensor)] = labels, reason

    def unite(self, first: Labels, *others: Labels) -> Labels:
        """Make axes of one size the same channels, and return their labels.

        Channels that meet a fixed size are pinned.
        """
        for other in others:
            self.sets.unite(first, other, self.module)
            self.pin(first[other == FIXED], "its size is given from outside")
            self.pin(other[first == FIXED], "its size is given from outside")
            first = either(first, other)
        return first

    def tie(self, rows: Labels) -> Labels:
        """Make all rows of a table (parts, size) the same channels, and return their labels."""
        return self.unite(rows[0], *rows[1:])

    def broadcast(self, shape: Sequence[int], *operands: Axes) -> Axes:
        """Unite the axes of operands that are broadcast to a shape, and return its labels."""
        result = [free(size) for size in shape]
        for axes in operands:
            for dim, axis in enumerate(axes, start=len(shape) - len(axes)):
                if len(axis) == shape[dim]:
                    result[dim] = self.unite(result[dim], axis)
                else:
                    self.pin(axis, "a single channel that is broadcast to many")
        return result
