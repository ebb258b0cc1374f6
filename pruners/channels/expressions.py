"""Expressions: how a size is computed from numbers that modules keep and from axes of tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol

import numpy as np

from pruners.channels.groups import Place
from pruners.channels.labels import LabelledTensors, Labels, fixed, is_tracked

PARTS = "the number of parts of an axis"


@dataclass(eq=False)
class Source:
    """One integer that a module keeps.

    Attributes:
        name: name of the attribute, for messages.
        value: its value before any removal.
        trace: the labels of the pass.
        places: where it is kept; several places if modules share a list.
        labels: labels of the axis that it is bound to, None before it is used as a size.
        reason: why the number must not change, or "".
    """

    name: str
    value: int
    trace: LabelledTensors
    places: list[Place] = field(default_factory=list)
    labels: Labels | None = None
    reason: str = ""

    def axis(self) -> Labels:
        """Return the labels of an axis of this size."""
        if self.labels is None:
            if self.reason:
                return fixed(self.value)
            self.labels = self.trace.sets.fresh(self.value, owner=self.name)
        return self.labels

    def stay(self, use: str) -> None:
        """Keep the value and thus the size of all axes bound to it, because of a use."""
        self.pin(f"its size is {self.name}, which is {use}")

    def pin(self, reason: str) -> None:
        """Keep the value, and give the axes this reason."""
        if not self.reason:
            self.reason = reason
            if self.labels is not None:
                self.trace.pin(self.labels, self.reason)

    @property
    def is_bound(self) -> bool:
        """Whether it is bound to an axis that may change."""
        return self.labels is not None and not self.reason


class Expression(Protocol):
    """How a size is computed."""

    @property
    def size(self) -> int:
        """Its value before any removal."""

    def leaves(self) -> Iterator[Leaf]:
        """Yield the numbers that it is computed from."""

    def rows(self) -> Labels | None:
        """Return labels (alternatives, size) of axes that have this size after any removal.

        None if only an axis of this size can show that.
        """

    def meet(self, trace: LabelledTensors, labels: Labels) -> Labels:
        """Unite an axis with those of this size, and return its labels."""


@dataclass(frozen=True)
class Constant:
    """A number that is written in the code."""

    size: int

    def leaves(self) -> Iterator[Leaf]:
        """Yield itself."""
        yield self

    def rows(self) -> Labels:
        """Return the labels of an axis that cannot change."""
        return fixed(self.size).reshape(1, -1)

    def meet(self, trace: LabelledTensors, labels: Labels) -> Labels:
        """Pin the axis."""
        return trace.unite(labels, fixed(self.size))

    def stay(self, use: str) -> None:
        """Do nothing: it never changes."""

    def pin(self, reason: str) -> None:
        """Do nothing: it never changes."""

    @property
    def labels(self) -> None:
        """Return None: it is bound to no axis."""

    @property
    def may_change(self) -> bool:
        """Whether a removal can change it."""
        return False


@dataclass(frozen=True)
class Attribute:
    """A number as a module keeps it."""

    source: Source

    @property
    def size(self) -> int:
        """Its value before any removal."""
        return self.source.value

    def leaves(self) -> Iterator[Leaf]:
        """Yield itself."""
        yield self

    def rows(self) -> Labels:
        """Return the labels of the axis that it is bound to."""
        return self.source.axis().reshape(1, -1)

    def meet(self, trace: LabelledTensors, labels: Labels) -> Labels:
        """Unite the axis with the one that it is bound to."""
        if self.source.reason:
            trace.pin(labels, self.source.reason)
        return trace.unite(labels, self.source.axis())

    def stay(self, use: str) -> None:
        """Keep the value."""
        self.source.stay(use)

    def pin(self, reason: str) -> None:
        """Keep the value, and give the axes this reason."""
        self.source.pin(reason)

    @property
    def labels(self) -> Labels | None:
        """Labels of the axis that it is bound to, if any."""
        return self.source.labels

    @property
    def may_change(self) -> bool:
        """Whether a removal can change it."""
        return not self.source.reason


@dataclass(frozen=True)
class Known:
    """The size of one or more axes of tensors, as rows of labels (alternatives, size)."""

    trace: LabelledTensors
    labels: Labels

    @property
    def size(self) -> int:
        """Its value before any removal."""
        return int(self.labels.shape[1])

    def leaves(self) -> Iterator[Leaf]:
        """Yield itself."""
        yield self

    def rows(self) -> Labels:
        """Return the labels."""
        return self.labels

    def meet(self, trace: LabelledTensors, labels: Labels) -> Labels:
        """Unite the axis with its own."""
        return trace.unite(labels, *self.labels)

    def stay(self, use: str) -> None:
        """Pin the axes."""
        self.pin(f"its size is {use}")

    def pin(self, reason: str) -> None:
        """Pin the axes for a reason."""
        self.trace.pin(self.labels, reason)

    @property
    def may_change(self) -> bool:
        """Whether a removal can change it."""
        return is_tracked(self.labels)


Leaf = Constant | Attribute | Known


@dataclass(frozen=True)
class Quotient:
    """A size divided by a number of parts, which stay."""

    whole: Expression
    parts: int

    @property
    def size(self) -> int:
        """Its value before any removal."""
        return self.whole.size // self.parts

    def leaves(self) -> Iterator[Leaf]:
        """Yield the leaves of the whole."""
        return self.whole.leaves()

    def rows(self) -> Labels | None:
        """Return the parts as rows."""
        rows = self.whole.rows()
        return None if rows is None else rows.reshape(-1, self.size)

    def meet(self, trace: LabelledTensors, labels: Labels) -> Labels:
        """Unite the axis with all parts."""
        rows = self.rows()
        return keep_all(trace, labels, self) if rows is None else trace.unite(labels, *rows)


@dataclass(frozen=True)
class Sum:
    """The size of parts that are concatenated."""

    parts: tuple[Expression, ...]

    @property
    def size(self) -> int:
        """Its value before any removal."""
        return sum(part.size for part in self.parts)

    def leaves(self) -> Iterator[Leaf]:
        """Yield the leaves of all parts."""
        for part in self.parts:
            yield from part.leaves()

    def rows(self) -> Labels | None:
        """Return the concatenated labels of the parts."""
        rows = [part.rows() for part in self.parts]
        if any(own is None or len(own) > 1 for own in rows):
            return None
        return np.concatenate([own for own in rows if own is not None], axis=1)

    def meet(self, trace: LabelledTensors, labels: Labels) -> Labels:
        """Unite each part with its stretch of the axis."""
        bounds = np.cumsum([part.size for part in self.parts])[:-1]
        stretches = zip(self.parts, np.split(labels, bounds), strict=True)
        return np.concatenate([part.meet(trace, stretch) for part, stretch in stretches])


@dataclass(frozen=True)
class Difference:
    """A size minus another: the end of the axis, unless it is used for the start."""

    whole: Expression
    part: Expression

    @property
    def size(self) -> int:
        """Its value before any removal."""
        return self.whole.size - self.part.size

    def leaves(self) -> Iterator[Leaf]:
        """Yield the leaves of both."""
        yield from self.whole.leaves()
        yield from self.part.leaves()

    def rows(self) -> None:
        """Return None: the rest can be on either side."""
        return

    def meet(self, trace: LabelledTensors, labels: Labels) -> Labels:
        """Unite the axis with the rest of the whole, and the part with its place there."""
        rows, taken = self.whole.rows(), self.part.size
        if rows is None or len(rows) > 1:
            return keep_all(trace, labels, self)
        whole = rows[0]
        rest, beside = whole[taken:], whole[:taken]
        if _same(trace, labels, whole[: self.size]) and not _same(trace, labels, rest):
            rest, beside = whole[: self.size], whole[self.size :]
        self.part.meet(trace, beside)
        return trace.unite(labels, rest)


def _same(trace: LabelledTensors, first: Labels, second: Labels) -> bool:
    return bool((trace.sets.roots(first) == trace.sets.roots(second)).all())


@dataclass(frozen=True)
class Product:
    """A size times numbers that stay, such as the features of all heads."""

    factors: tuple[Expression, ...]

    @property
    def size(self) -> int:
        """Its value before any removal."""
        return math.prod(factor.size for factor in self.factors)

    def leaves(self) -> Iterator[Leaf]:
        """Yield the leaves of all factors."""
        for factor in self.factors:
            yield from factor.leaves()

    def rows(self) -> None:
        """Return None: only the axis shows which factor changes, and at which place."""
        return

    def meet(self, trace: LabelledTensors, labels: Labels) -> Labels:
        """Find the factors along which the axis changes, and keep the others."""
        changing = [
            position
            for position, factor in enumerate(self.factors)
            if any(leaf.may_change for leaf in factor.leaves())
        ]
        parts = trace.sets.parts(labels)
        if parts is not None and changing:
            along = self._along(trace.sets.roots(parts), changing)
            if along is not None:
                return self._meet_parts(trace, labels, parts, along)
        roots = trace.sets.roots(labels)
        shapes = {
            position: shape
            for position in changing
            if (shape := _shape_along(roots, self.factors[position].size))
        }
        follow = max(shapes or changing, default=None)
        for position, factor in enumerate(self.factors):
            for leaf in factor.leaves() if position != follow else ():
                leaf.stay(PARTS)
        if follow is None:
            return keep_all(trace, labels, self)
        before = math.prod(factor.size for factor in self.factors[:follow])
        cube = labels.reshape(shapes.get(follow, (before, self.factors[follow].size, -1)))
        inner = trace.tie(np.moveaxis(cube, 1, -1).reshape(-1, cube.shape[1]))
        inner = self.factors[follow].meet(trace, inner)
        return np.broadcast_to(inner[:, None], cube.shape).reshape(-1)

    def _along(self, parts: Labels, changing: list[int]) -> list[tuple[int, int, int]] | None:
        """Return which part of merged axes belongs to each factor that changes.

        Args:
            parts: the roots of the merged axes (axes, positions).
            changing: the factors.

        Returns:
            For each factor its position, the part, and how many neighbours share a label of it;
            None if some factor has no part of its own.
        """
        sizes = [factor.size for factor in self.factors]
        found = []
        free = set(range(len(parts)))
        for position in changing:
            expected = math.prod(sizes[position + 1 :])
            fitting = {
                part: shape[2]
                for part in sorted(free)
                if (shape := _shape_along(parts[part], sizes[position])) is not None
            }
            # Of parts of one size, the order of the factors decides.
            part = min(fitting, key=lambda part: fitting[part] != expected, default=None)
            if part is None:
                return None
            free.remove(part)
            found.append((position, part, fitting[part]))
        return found

    def _meet_parts(
        self,
        trace: LabelledTensors,
        labels: Labels,
        parts: Labels,
        along: list[tuple[int, int, int]],
    ) -> Labels:
        """Unite each factor with the merged axis of its size."""
        kept = set(range(len(self.factors))) - {position for position, _, _ in along}
        for leaf in chain.from_iterable(self.factors[position].leaves() for position in kept):
            leaf.stay(PARTS)
        for part in set(range(len(parts))) - {part for _, part, _ in along}:
            trace.pin(parts[part], "reshaped to sizes that are written in the code")
        for position, part, after in along:
            factor = self.factors[position]
            factor.meet(trace, parts[part].reshape(-1, factor.size, after)[0, :, 0])
        return labels


def _shape_along(roots: Labels, size: int) -> tuple[int, int, int] | None:
    """Return a shape (before, size, after) of an axis whose labels differ along ``size`` only."""
    times = len(roots) // size
    for after in (number for number in range(1, times + 1) if times % number == 0):
        cube = roots.reshape(times // after, size, after)
        if (cube == cube[:1, :, :1]).all() and (cube != cube[:, :1]).any():
            return times // after, size, after
    return None


def keep_all(trace: LabelledTensors, labels: Labels, size: Expression) -> Labels:
    """Pin an axis, and keep every number that its size is computed from."""
    for leaf in size.leaves():
        leaf.stay("part of a sum or a product that is not followed")
    trace.pin(labels, "its size is computed in a way that is not followed")
    return trace.unite(labels, fixed(len(labels)))
