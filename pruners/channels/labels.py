"""Labels on tensor axes, which say which indices can only be removed together.

Every axis of every tensor carries an array with one label per index. A label is a non-negative
number; united labels stand for one channel. Two negative values mark indices that belong to no
channel: `FREE` if the axis adapts to any size, `FIXED` if its size comes from outside and cannot
change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from harness.errors import RequestError
from pruners.channels.sizes import Call, Width

Labels = npt.NDArray[np.int64]
Axes = list[Labels]

FREE = -1
FIXED = -2


def free(size: int) -> Labels:
    """Return the labels of an axis that adapts to any size."""
    return np.full(size, FREE)


def fixed(size: int) -> Labels:
    """Return the labels of an axis whose size comes from outside."""
    return np.full(size, FIXED)


def constant(size: int) -> Labels:
    """Return the labels of an axis whose size no channel decides; a single position adapts."""
    return fixed(size) if size > 1 else free(size)


def is_tracked(labels: Labels) -> bool:
    """Return whether any index belongs to a channel."""
    return bool((labels >= 0).any())


def either(first: Labels, second: Labels) -> Labels:
    """Return the label of either axis, else `FIXED` if either is fixed, else `FREE`."""
    tracked = (first >= 0) | (second >= 0)
    return np.where(tracked, np.maximum(first, second), np.minimum(first, second))


def without_axes(axes: Axes, dims: Iterable[int], *, keep: bool) -> Axes:
    """Return axes without some of them or, with ``keep``, with one free position for each."""
    gone = set(dims)
    if keep:
        return [free(1) if dim in gone else axis for dim, axis in enumerate(axes)]
    return [axis for dim, axis in enumerate(axes) if dim not in gone]


class LabelSets:
    """Which labels are united, and which are pinned.

    Unions are collected as arrays of pairs and solved together, as connected components.
    """

    def __init__(self) -> None:
        self._count = 0
        self._pairs: list[tuple[Labels, Labels]] = []
        self._unions: list[tuple[Labels, Labels, str]] = []
        self._pins: list[tuple[Labels, str]] = []
        self._roots: Labels | None = None
        self._starts: list[int] = []
        self._owners: list[str] = []
        self._products: list[tuple[int, Labels]] = []
        self._followed: dict[int, tuple[int, ...]] = {}
        self._marks: list[tuple[Labels, str]] = []

    def fresh(self, size: int, owner: str = "") -> Labels:
        """Return new labels for an axis of a tensor with this name."""
        self._roots = None
        self._starts.append(self._count)
        self._owners.append(owner)
        self._count += size
        return np.arange(self._count - size, self._count)

    @property
    def count(self) -> int:
        """The number of labels."""
        return self._count

    def owner(self, labels: Labels) -> str:
        """Return the name of the first tensor that is coupled with the first label."""
        first = self.roots(labels[labels >= 0])[0]
        name = self._owners[int(np.searchsorted(self._starts, first, side="right")) - 1]
        if not name and (parts := self.parts(np.array([first]))) is not None:
            return self.owner(parts[:, 0])
        return name

    def product(self, parts: Labels) -> Labels:
        """Return new labels for positions that are removed whenever any of their parts is.

        Args:
            parts: labels (parts, positions), such as the rows and columns of a flattened matrix.
        """
        labels = self.fresh(parts.shape[1])
        if labels.size:
            self._products.append((int(labels[0]), parts))
        return labels

    def parts(self, labels: Labels) -> Labels | None:
        """Return the parts (parts, positions) of labels that are all products, else None."""
        if not self._products or not labels.size:
            return None
        which = self._product_of(labels)
        found = np.unique(which)
        counts = {len(self._products[product][1]) for product in found.tolist() if product >= 0}
        if found[0] < 0 or len(counts) != 1:
            return None
        parts = np.empty((counts.pop(), len(labels)), np.int64)
        for product in found.tolist():
            start, own = self._products[product]
            places = labels[which == product] - start
            if (places >= own.shape[1]).any():
                return None
            parts[:, which == product] = own[:, places]
        return parts

    def without(self, gone: Labels) -> npt.NDArray[np.bool_]:
        """Return for each label whether it stays when the channels of some are removed."""
        roots = self.roots(np.arange(self._count))
        removed = np.zeros(self._count, np.bool_)
        removed[roots[gone]] = True
        before = -1
        while before < (before := int(removed.sum())):
            for start, parts in self._products:
                goes = (removed[roots[parts]] & (parts >= 0)).any(axis=0)
                removed[roots[start : start + parts.shape[1]][goes]] = True
        return ~removed[roots]

    def settle(self) -> None:
        """Decide with which of their parts products are removed, and pin what cannot follow.

        A product that is united with nothing is left alone. One with a single part that can be
        removed is united with it. One with several, such as a feature within a head, goes with
        any of them. The parts of products that are united with each other are the same channels,
        part by part. Of products that are united with one of their own parts, or with products of
        another number of parts, only the last part can be removed.
        """
        alike: dict[int, list[tuple[int, Labels]]] = {}
        for start, parts in self._products:
            alike.setdefault(len(parts), []).append((start, parts))
        tables = [
            (
                np.concatenate([np.arange(start, start + parts.shape[1]) for start, parts in own]),
                np.concatenate([parts for _, parts in own], axis=1),
            )
            for own in alike.values()
        ]
        unsettled = bool(tables)
        while unsettled:
            unsettled = sum(self._settle(*table) for table in tables) > 0
            unsettled = unsettled or self._settle_crossing(tables)
        self._followed = self._several(tables)

    def _settle(self, own: Labels, parts: Labels) -> bool:
        """Unite or pin the positions of some products, and return whether anything changed."""
        roots, part_roots, can_go, met = self._state_of(own, parts)
        ways = can_go.sum(axis=0)
        stays = self._is_pinned()
        if (held := can_go & stays[roots]).any():
            self.pin(parts[held], "merged with others that stay")
        elif (held := met & (ways == 0) & ~stays[roots]).any():
            self.pin(own[held], "merged from axes that stay")
        elif (follows := met & (ways == 1) & ((part_roots != roots) & can_go).any(axis=0)).any():
            self.unite(own[follows], parts[can_go.argmax(axis=0), np.arange(len(own))][follows])
        else:
            return self._unite_alike(roots, parts, part_roots, can_go & met)
        return True

    def _state_of(
        self, own: Labels, parts: Labels
    ) -> tuple[Labels, Labels, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Return roots of products and parts, which parts can go, and which products are met."""
        roots, part_roots = self.roots(own), self.roots(parts)
        can_go = (part_roots >= 0) & ~self._is_pinned()[part_roots]
        met = np.bincount(self.roots(np.arange(self._count)))[roots] > 1
        return roots, part_roots, can_go, met

    def _unite_alike(
        self, roots: Labels, parts: Labels, part_roots: Labels, goes: npt.NDArray[np.bool_]
    ) -> bool:
        """Unite the parts of products that are one channel, and return whether any differed."""
        order = np.argsort(roots, kind="stable")
        first, second = order[:-1], order[1:]
        same = roots[first] == roots[second]
        differ = same & goes[:, first] & goes[:, second]
        differ &= part_roots[:, first] != part_roots[:, second]
        self.unite(parts[:, first][differ], parts[:, second][differ])
        return bool(differ.any())

    def _settle_crossing(self, tables: Sequence[tuple[Labels, Labels]]) -> bool:
        """Pin all parts but the last of products that cannot go with several.

        These are products that are one of their own parts, that have a part twice, or that are
        united with a product of another number of parts.
        """
        states = [self._state_of(*table) for table in tables]
        together = [roots[met & (can_go.sum(0) > 1)] for roots, _, can_go, met in states]
        found, times = np.unique(np.concatenate([*map(np.unique, together)]), return_counts=True)
        crossing = np.isin(np.arange(self._count), found[times > 1])
        changed = False
        for (own, parts), (roots, part_roots, can_go, met) in zip(tables, states, strict=True):
            going = np.where(can_go, part_roots, FIXED - np.arange(len(parts))[:, None])
            # Both along the rows and along the columns of one product.
            in_product = going + self._product_of(own) * np.where(can_go, self._count, 0)
            twice = sum(
                np.isin(in_product[one], in_product[other])
                for one in range(len(parts))
                for other in range(len(parts))
                if one != other
            )
            several = met & (can_go.sum(axis=0) > 1)
            is_part = several & (going == roots).any(axis=0)
            wrong = several & (crossing[roots] | (twice > 0)) & ~is_part
            held = can_go & (is_part & (going != roots))
            held |= can_go & wrong & (can_go[::-1].cumsum(axis=0) > 1)[::-1]
            self.pin(parts[held], "merged with another axis of channels")
            changed = changed or bool(held.any())
        return changed

    def _product_of(self, labels: Labels) -> Labels:
        """Return the number of the product that each label belongs to."""
        starts = np.array([start for start, _ in self._products])
        return np.searchsorted(starts, labels, side="right") - 1

    def _several(self, tables: Sequence[tuple[Labels, Labels]]) -> dict[int, tuple[int, ...]]:
        """Return the parts with which products go, by root, for products with several."""
        found: dict[int, tuple[int, ...]] = {}
        for own, parts in tables:
            roots, part_roots, can_go, met = self._state_of(own, parts)
            several = np.flatnonzero(met & (can_go.sum(axis=0) > 1))
            _, first = np.unique(roots[several], return_index=True)
            for position in several[first].tolist():
                going = part_roots[can_go[:, position], position]
                found[int(roots[position])] = tuple(going.tolist())
        return found

    def channels(self, labels: Labels) -> Labels:
        """Return the channels that a position goes with (parts, positions), once they are settled.

        Most positions belong to one channel: their root. A feature within a head belongs to the
        channels of the head and of the feature. Missing parts are -1, or `FIXED`.
        """
        roots = self.roots(labels)
        if not np.isin(roots, list(self._followed)).any():
            return roots[None]
        found = [[*self._leaves(root)] for root in roots.tolist()]
        parts = max(map(len, found), default=1)
        return np.array([own + [FREE] * (parts - len(own)) for own in found]).reshape(-1, parts).T

    def _leaves(self, root: int) -> Iterator[int]:
        """Yield the channels of a root, whose parts may be products themselves."""
        if root in self._followed:
            for part in self._followed[root]:
                yield from self._leaves(part)
        else:
            yield root

    def _is_pinned(self) -> npt.NDArray[np.bool_]:
        """Return for each root whether it is pinned; the last entry is for no root at all."""
        pinned = np.zeros(self._count + 1, np.bool_)
        if self._pins:
            pinned[self.roots(np.concatenate([labels for labels, _ in self._pins]))] = True
        return pinned

    def unite(self, first: Labels, second: Labels, module: str = "") -> None:
        """Make the labels of two arrays of one shape the same, position by position.

        Args:
            first: one array of labels.
            second: the other array.
            module: the module whose forward is running, for `tied_in`.
        """
        differ = (first >= 0) & (second >= 0) & (first != second)
        if differ.any():
            self._roots = None
            self._pairs.append((first[differ], second[differ]))
            self._unions.append((*self._pairs[-1], module))

    def tied_in(self, first: int, second: int) -> str:
        """Return the module whose forward finally made two labels the same."""
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

    def mark(self, labels: Labels, kind: str) -> None:
        """Note what the channels of these labels are, one of `pruners.channels.kinds.KINDS`."""
        tracked = labels[labels >= 0]
        if tracked.size:
            self._marks.append((tracked, kind))

    def kinds(self) -> dict[int, set[str]]:
        """Return the marks of each channel, by its root, once channels are settled."""
        found: dict[int, set[str]] = {}
        for labels, kind in self._marks:
            for root in np.unique(self.channels(labels)).tolist():
                found.setdefault(root, set()).add(kind)
        return found

    def roots(self, labels: Labels) -> Labels:
        """Replace the labels of each channel by one number; negative labels stay."""
        if self._roots is None:
            self._roots = self._solve()
        return np.where(labels >= 0, self._roots[labels], labels) if self._count else labels

    def pinned(self) -> dict[int, str]:
        """Return the first reason why each channel was pinned, by its root."""
        reasons: dict[int, str] = {}
        for labels, reason in self._pins:
            for root in np.unique(self.roots(labels)).tolist():
                reasons.setdefault(root, reason)
        return reasons

    def _solve(self) -> Labels:
        """Return for each label the smallest one united with it, and drop redundant pairs."""
        if not self._pairs:
            return np.arange(self._count)
        components = self._components(self._pairs)
        _, smallest, component = np.unique(components, return_index=True, return_inverse=True)
        roots: Labels = smallest[component].astype(np.int64)
        united = np.flatnonzero(roots != np.arange(self._count))
        self._pairs = [(united, roots[united])] if united.size else []
        return roots

    def _components(self, pairs: Sequence[tuple[Labels, Labels]]) -> Labels:
        """Return a number for each label, equal for labels that pairs connect."""
        # Importing scipy takes a while, and methods that cut no channels do without.
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

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
        call: the current call of torch by the model's code, for the sizes that it requests.
        module: name of the module whose forward is running.
        over: whether the pass has ended, after which its sizes act as plain numbers.
    """

    def __init__(self) -> None:
        self.sets = LabelSets()
        self.call = Call()
        self.module = ""
        self.over = False
        self._axes: dict[int, Axes] = {}
        self._alive: list[Tensor] = []
        self._uses: dict[int, list[bool]] = {}
        self._pins_on_use: dict[int, tuple[Labels, str]] = {}
        self._depths: dict[int, int] = {}

    def __getitem__(self, tensor: Tensor) -> Axes:
        """Return the labels of a tensor, one array per axis.

        A tensor that was not created in the pass comes from outside: its size cannot change.
        """
        if id(tensor) not in self._axes:
            if type(tensor) not in (Tensor, nn.Parameter):
                raise RequestError(
                    f"a {type(tensor).__name__} is made in {self.module or 'the model'}: "
                    "tensors of other classes cannot be followed; make it a torch.Tensor"
                )
            self[tensor] = [fixed(size) for size in tensor.shape]
        return self._axes[id(tensor)]

    def __setitem__(self, tensor: Tensor, axes: Axes) -> None:
        sizes = [len(axis) for axis in axes]
        assert sizes == list(tensor.shape), f"labels for {sizes}, but a tensor of {tensor.shape}"
        self._axes[id(tensor)] = axes
        # A labelled tensor must stay alive, because its id is the key.
        self._alive.append(tensor)

    def shape(self, tensor: Tensor) -> torch.Size:
        """Return the shape of a tensor with sizes that remember their axes."""
        return torch.Size(
            Width(size, axis.reshape(1, -1), self) if is_tracked(axis) else size
            for size, axis in zip(tensor.shape, self[tensor], strict=True)
        )

    def used(self, tensors: Iterable[Tensor], *, by_norm: bool) -> None:
        """Record that an operation reads these tensors, and whether it normalises the first."""
        for position, tensor in enumerate(tensors):
            if id(tensor) in self._pins_on_use:
                self.pin(*self._pins_on_use.pop(id(tensor)))
            self._uses.setdefault(id(tensor), []).append(by_norm and position == 0)

    def depth(self, tensor: Tensor) -> int | None:
        """Return how many layers an activation has passed, None of what no input has reached."""
        return self._depths.get(id(tensor))

    def computed(self, results: Iterable[Tensor], depth: int | None) -> None:
        """Record how many layers the results of an operation have passed."""
        if depth is not None:
            self._depths.update((id(tensor), depth) for tensor in results)

    def mark(self, kind: str, *axes: Labels) -> None:
        """Note what the channels of axes are, one of `pruners.channels.kinds.KINDS`."""
        for axis in axes:
            self.sets.mark(axis, kind)

    def is_used(self, tensor: Tensor) -> bool:
        """Return whether any operation has read the tensor."""
        return id(tensor) in self._uses

    def is_only_normalised(self, tensor: Tensor) -> bool:
        """Return whether only normalisation has read the tensor."""
        return all(self._uses.get(id(tensor), [False]))

    def pin(self, labels: Labels, reason: str) -> None:
        """Exclude channels from removal.

        Args:
            labels: any of their labels; negative ones are ignored.
            reason: the reason for the user, to which the module is added.
        """
        self.sets.pin(labels, f"{reason}, in {self.module}" if self.module else reason)

    def pin_on_use(self, tensor: Tensor, labels: Labels, reason: str) -> None:
        """Exclude channels from removal if an operation reads a tensor, or the model returns it."""
        self._pins_on_use[id(tensor)] = labels, reason

    def unite(self, first: Labels, *others: Labels) -> Labels:
        """Make axes of one size the same channels, and return their labels.

        Channels that are united with a fixed size are pinned.
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
