"""Labels of a tensor that is viewed in another shape."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from pruners.channels.expressions import PARTS
from pruners.channels.kept_sizes import AttributeSize, expression
from pruners.channels.labels import (
    FIXED,
    FREE,
    Axes,
    LabelledTensors,
    Labels,
    constant,
    fixed,
    free,
    is_tracked,
)
from pruners.channels.sizes import adapts

_LARGEST_PRODUCT = 1 << 22


def reshape(trace: LabelledTensors, axes: Axes, shape: Sequence[int]) -> Axes:
    """Return the labels of a tensor viewed in another shape.

    Axes that are merged repeat their labels, row-major. An axis that is split again gets the same
    labels back. A labelled axis that is split anew, as into groups or heads, keeps its labels
    along the part whose size the code reads from a tensor, and channels at the same offset of the
    other parts are tied: whatever is removed then, all parts stay equally long. Halves that are
    shuffled and split again and again, as in a ShuffleNet, are so tied to a single channel.

    Arrays that are not the input's own are read-only: a write could not reach the input.
    """
    requested = trace.call.shape(len(shape)) if trace.call.is_known else list(shape)
    result: Axes = []
    for sources, targets in _blocks([len(axis) for axis in axes], shape):
        merged = [axes[dim] for dim in sources]
        if len(sources) == len(targets) == 1:
            result += merged
            continue
        asked = [requested[dim] for dim in targets] if requested else None
        parts = _split(trace, _merge(trace, merged), [shape[dim] for dim in targets], asked)
        for part in parts:
            part.flags.writeable = False
        result += parts
    for dim, size in enumerate(requested or ()):
        if not adapts(size) and size != -1:
            trace.pin(result[dim], "reshaped to sizes that are written in the code")
        elif (united := unite_with_size(trace, result[dim], size)) is not result[dim]:
            united.flags.writeable = False
            result[dim] = united
    return result


def unite_with_size(trace: LabelledTensors, labels: Labels, size: int) -> Labels:
    """Unite an axis with those whose size the code has asked for, and return its labels."""
    if not adapts(size):
        return labels
    trace.call.met.add(id(size))
    size_of = expression(size, trace)
    return labels if size_of is None else size_of.meet(trace, labels)


def _blocks(source: Sequence[int], target: Sequence[int]) -> Iterator[tuple[range, range]]:
    """Pair the shortest runs of axes that have equally many elements."""
    i = j = 0
    while i < len(source) or j < len(target):
        start, begin = i, j
        i, j = min(i + 1, len(source)), min(j + 1, len(target))
        left, right = math.prod(source[start:i]), math.prod(target[begin:j])
        while left != right:
            if left < right:
                left *= source[i]
                i += 1
            else:
                right *= target[j]
                j += 1
        yield range(start, i), range(begin, j)


def _merge(trace: LabelledTensors, axes: Axes) -> Labels:
    """Return the labels of axes that become one.

    An index of the result that follows several axes is a product of their labels.
    """
    tracked = [dim for dim, axis in enumerate(axes) if is_tracked(axis)]
    if not tracked:
        size = math.prod(map(len, axes))
        return np.full(size, FIXED if any((axis == FIXED).any() for axis in axes) else FREE)
    sizes = [len(axis) for axis in axes]
    for dim in tracked[:-1]:
        if len(axes[dim]) == 1 or math.prod(sizes) > _LARGEST_PRODUCT:
            trace.pin(axes[dim], "merged with another axis of channels")
            tracked.remove(dim)
    parts = []
    for dim in tracked:
        along = axes[dim].reshape([-1 if other == dim else 1 for other in range(len(axes))])
        parts.append(np.broadcast_to(along, sizes).reshape(-1))
    return parts[0] if len(parts) == 1 else trace.sets.product(np.stack(parts))


def _split(
    trace: LabelledTensors, labels: Labels, shape: list[int], asked: list[int] | None
) -> Axes:
    """Return the labels of one axis that becomes several.

    Args:
        trace: the labels of the pass.
        labels: of the axis.
        shape: sizes of the parts.
        asked: the same as the code has written them, if that is known.
    """
    if not shape:
        return []
    cube = labels.reshape(shape)
    if not is_tracked(labels):
        return [np.full(size, cube.min(initial=FREE)) for size in shape]
    keep = _constant_elsewhere(cube)
    if keep is None:
        keep = _constant_elsewhere(trace.sets.roots(cube))
    if keep is None and (parts := trace.sets.parts(labels)) is not None:
        split = _split_product(trace, parts, shape, asked)
        if split is not None:
            return split
    if keep is None:
        keep = _adapting(asked) if asked else len(shape) - 1
    if keep is None:
        trace.pin(labels, "reshaped to sizes that are written in the code")
        return [fixed(size) for size in shape]
    rows = np.moveaxis(cube, keep, -1).reshape(-1, shape[keep])
    kept = rows[0].copy() if (rows == rows[0]).all() else trace.tie(rows)
    others = _unlabelled(shape, asked, {keep})
    return [*others[:keep], kept, *others[keep + 1 :]]


def _split_product(
    trace: LabelledTensors, parts: Labels, shape: list[int], asked: list[int] | None
) -> Axes | None:
    """Return the labels of merged axes that are split again, or None if they are torn."""
    cubes = [part.reshape(shape) for part in parts]
    along = [_constant_elsewhere(cube) for cube in cubes]
    if None in along:
        return None
    kept = {dim for dim in along if dim is not None}
    result = _unlabelled(shape, asked, kept)
    for dim in kept:
        rows = [
            np.moveaxis(cube, dim, -1).reshape(-1, shape[dim])[0]
            for cube, varies in zip(cubes, along, strict=True)
            if varies == dim
        ]
        result[dim] = rows[0].copy() if len(rows) == 1 else trace.sets.product(np.stack(rows))
    return result


def _unlabelled(shape: list[int], asked: list[int] | None, kept: Collection[int]) -> Axes:
    """Return labels of axes along which no channel is found: all but some.

    Numbers that modules keep for them stay.
    """
    result = [*map(constant, shape)]
    for dim, number in enumerate(asked or ()):
        if isinstance(number, AttributeSize) and dim not in kept:
            number.stay(PARTS)
        elif adapts(number):
            result[dim] = free(shape[dim])
    return result


def _constant_elsewhere(cube: Labels) -> int | None:
    """Return the axis along which labels differ, if they do along no other."""
    sizes_above_one = [dim for dim, size in enumerate(cube.shape) if size > 1]
    for keep in sizes_above_one or [0]:
        rows = np.moveaxis(cube, keep, -1).reshape(-1, cube.shape[keep])
        if (rows == rows[0]).all():
            return keep
    return None


def _adapting(asked: list[int]) -> int | None:
    """Return the innermost part whose size follows from a tensor's, if any."""
    adapting = [dim for dim, size in enumerate(asked) if adapts(size) or size == -1]
    return adapting[-1] if adapting else None
