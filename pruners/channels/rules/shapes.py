"""Rules of operations that rearrange elements: views, transpositions, repetitions."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from pruners.channels.expressions import PARTS
from pruners.channels.kept_sizes import AttributeSize, unite_with_size
from pruners.channels.labels import (
    FIXED,
    FREE,
    Axes,
    LabelledTensors,
    Labels,
    constant,
    either,
    fixed,
    free,
    is_tracked,
    without_axes,
)
from pruners.channels.rules.pointwise import as_asked
from pruners.channels.rules.registry import rule
from pruners.channels.sizes import adapts

_LARGEST_PRODUCT = 1 << 22


# Views


@rule("view", "_unsafe_view", "_reshape_alias", "reshape", "unflatten")
def view(trace: LabelledTensors, out: Tensor, x: Tensor, *args: Any) -> Axes:
    """Return the labels of `reshape`; pin the last axis if numbers change their width."""
    if out.numel() != x.numel():  # read as numbers of another width
        trace.pin(trace[x][-1], "read as numbers of another width")
        return [*trace[x][:-1], fixed(out.shape[-1])]
    return reshape(trace, trace[x], out.shape)


@rule("as_strided")
def as_strided(
    trace: LabelledTensors, out: Tensor, x: Tensor, size: Sequence[int], *args: Any
) -> Axes:
    """Keep the labels if only the layout in memory changes; pin all if the shape does."""
    if list(size) == list(x.shape):
        return trace[x]
    for axis in trace[x]:
        trace.pin(axis, "viewed with strides that are written in the code")
    return [*map(fixed, out.shape)]


@rule("view_as_complex")
def view_as_complex(trace: LabelledTensors, out: Tensor, x: Tensor) -> Axes:
    """Drop the last axis, which holds a real and an imaginary part."""
    *axes, parts = trace[x]
    trace.pin(parts, "real and imaginary parts")
    return axes


@rule("view_as_real")
def view_as_real(trace: LabelledTensors, out: Tensor, x: Tensor) -> Axes:
    """Add an axis for a real and an imaginary part."""
    return [*trace[x], constant(2)]


def reshape(trace: LabelledTensors, axes: Axes, shape: Sequence[int]) -> Axes:
    """Return the labels of a tensor viewed in another shape.

    Merged axes repeat their labels, row-major. If such an axis is split again, the parts get their
    labels back. An axis that is split for the first time, into groups or heads for example, keeps
    its labels along the part whose size the code reads from a tensor. Channels at the same offset
    of the other parts are tied, so that all parts stay equally long. As a consequence, halves that
    are shuffled and split repeatedly, as in a ShuffleNet, end up as a single channel.

    Arrays that are not the input's own are read-only, because a write could not reach the input.

    Args:
        trace: the labels of the pass.
        axes: the labels of the tensor.
        shape: the new shape.
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


def _blocks(source: Sequence[int], target: Sequence[int]) -> Iterator[tuple[range, range]]:
    """Pair the shortest runs of axes with equally many elements."""
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

    An index of the result that depends on several labelled axes is a product of their labels.
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
        labels: the labels of the axis.
        shape: the sizes of the parts.
        asked: the same sizes as the code requested them, if known.
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
        adapting = _adapting(asked, shape) if asked else [len(shape) - 1]
        if not adapting:
            trace.pin(labels, "reshaped to sizes that are written in the code")
            return [fixed(size) for size in shape]
        if len(adapting) > 1 and (labels >= 0).all():
            return _split_several(trace, cube, adapting)
        keep = adapting[-1]
    rows = np.moveaxis(cube, keep, -1).reshape(-1, shape[keep])
    kept = rows[0].copy() if (rows == rows[0]).all() else trace.tie(rows)
    others = _unlabelled(shape, asked, {keep})
    return [*others[:keep], kept, *others[keep + 1 :]]


def _split_several(trace: LabelledTensors, cube: Labels, dims: list[int]) -> Axes:
    """Return the labels of an axis that becomes several, of which more than one can change.

    A position such as a feature of a head goes with both of them: it is their product.
    """
    owner = trace.sets.owner(cube)
    result = [*map(constant, cube.shape)]
    along = []
    for dim in dims:
        result[dim] = trace.sets.fresh(cube.shape[dim], owner)
        shape = [-1 if other == dim else 1 for other in range(cube.ndim)]
        along.append(np.broadcast_to(result[dim].reshape(shape), cube.shape).reshape(-1))
    trace.unite(cube.reshape(-1), trace.sets.product(np.stack(along)))
    return result


def _split_product(
    trace: LabelledTensors, parts: Labels, shape: list[int], asked: list[int] | None
) -> Axes | None:
    """Return the labels of merged axes that are split again, None if the split does not fit."""
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
    """Return the labels of all axes except some, for axes without channels.

    Numbers that modules keep for their sizes stay.
    """
    result = [*map(constant, shape)]
    for dim, number in enumerate(asked or ()):
        if isinstance(number, AttributeSize) and dim not in kept:
            number.stay(PARTS)
        elif adapts(number):
            result[dim] = free(shape[dim])
    return result


def _constant_elsewhere(cube: Labels) -> int | None:
    """Return the only axis along which labels differ, None if there are several."""
    sizes_above_one = [dim for dim, size in enumerate(cube.shape) if size > 1]
    for keep in sizes_above_one or [0]:
        rows = np.moveaxis(cube, keep, -1).reshape(-1, cube.shape[keep])
        if (rows == rows[0]).all():
            return keep
    return None


def _adapting(asked: list[int], shape: list[int]) -> list[int]:
    """Return the parts whose sizes follow from tensors, or from numbers that modules keep.

    Numbers that stay, and parts of one position, count only if there are no others.
    """
    adapting = [dim for dim, size in enumerate(asked) if adapts(size) or size == -1]
    changing = [dim for dim in adapting if shape[dim] > 1 and not _is_kept(asked[dim])]
    return changing or adapting[-1:]


def _is_kept(size: int) -> bool:
    """Return whether a number is computed from numbers of modules of which none can change."""
    return isinstance(size, AttributeSize) and not any(
        leaf.may_change for leaf in size.expression.leaves()
    )


# Axes in another order


@rule("t", "numpy_T")
def matrix_transposition(trace: LabelledTensors, out: Tensor, x: Tensor) -> Axes:
    """Swap both axes."""
    return trace[x][::-1]


@rule("transpose")
def transpose(trace: LabelledTensors, out: Tensor, x: Tensor, first: int, second: int) -> Axes:
    """Swap two axes."""
    axes = list(trace[x])
    axes[first], axes[second] = axes[second], axes[first]
    return axes


@rule("permute")
def permute(trace: LabelledTensors, out: Tensor, x: Tensor, dims: Sequence[int]) -> Axes:
    """Reorder the axes."""
    return [trace[x][dim] for dim in dims]


@rule("unsqueeze")
def unsqueeze(trace: LabelledTensors, out: Tensor, x: Tensor, dim: int) -> Axes:
    """Insert an axis of one position."""
    axes = list(trace[x])
    axes.insert(dim % out.dim(), free(1))
    return axes


@rule("squeeze")
def squeeze(
    trace: LabelledTensors, out: Tensor, x: Tensor, dims: int | Sequence[int] | None = None
) -> Axes:
    """Drop axes of one position."""
    axes = trace[x]
    named = range(len(axes)) if dims is None else [dims] if isinstance(dims, int) else dims
    gone = {dim % len(axes) for dim in named if len(axes[dim]) == 1}
    for dim in gone:
        trace.pin(axes[dim], "a single channel whose axis is dropped")
    return without_axes(axes, gone, keep=False)


@rule("flip")
def flip(trace: LabelledTensors, out: Tensor, x: Tensor, dims: Sequence[int]) -> Axes:
    """Reverse the labels with the axis."""
    flipped = {dim % x.dim() for dim in dims}
    return [axis[::-1] if dim in flipped else axis for dim, axis in enumerate(trace[x])]


@rule("roll")
def roll(
    trace: LabelledTensors, out: Tensor, x: Tensor, shifts: Any, dims: Sequence[int] = ()
) -> Axes:
    """Pin the channels along the axes that are rolled: all if none is named."""
    for dim in dims or range(x.dim()):
        trace.pin(trace[x][dim], "rolled by a number of channels")
    return trace[x]


@rule("rot90")
def rot90(
    trace: LabelledTensors, out: Tensor, x: Tensor, turns: int = 1, dims: Sequence[int] = (0, 1)
) -> Axes:
    """Pin both axes of the rotation."""
    axes = list(trace[x])
    first, second = dims
    for dim in dims:
        trace.pin(axes[dim], "turned by a right angle")
    if turns % 2:
        axes[first], axes[second] = axes[second], axes[first]
    return axes


@rule("diagonal")
def diagonal(
    trace: LabelledTensors, out: Tensor, x: Tensor, offset: int = 0, first: int = 0, second: int = 1
) -> Axes:
    """Pin rows and columns, which become one axis at the end."""
    gone = {first % x.dim(), second % x.dim()}
    for dim in gone:
        trace.pin(trace[x][dim], "rows and columns of a diagonal")
    axes = [axis for dim, axis in enumerate(trace[x]) if dim not in gone]
    return [*axes, constant(out.shape[-1])]


@rule("diag_embed")
def diag_embed(
    trace: LabelledTensors,
    out: Tensor,
    x: Tensor,
    offset: int = 0,
    first: int = -2,
    second: int = -1,
) -> Axes:
    """Label rows and columns with the channels of the last axis."""
    *axes, along = trace[x]
    if offset:
        trace.pin(along, "written beside a diagonal")
    new = fixed(out.shape[first]) if offset else along
    for dim in sorted({first % out.dim(), second % out.dim()}):
        axes.insert(dim, new)
    return axes


# Repetition


@rule("expand")
def expand(trace: LabelledTensors, out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    """Repeat axes of one position."""
    axes = trace.broadcast(out.shape, trace[x])
    requested = trace.call.shape(out.dim()) or [-1] * out.dim()
    if not trace.call.is_known:
        requested = list(out.shape)
    for dim, size in enumerate(requested):
        if adapts(size):
            axes[dim] = unite_with_size(trace, axes[dim], size)
        elif size != -1:
            trace.pin(axes[dim], "expanded to sizes that are written in the code")
            axes[dim] = either(axes[dim], constant(size))
    return axes


@rule("repeat")
def repeat(trace: LabelledTensors, out: Tensor, x: Tensor, times: Sequence[int]) -> Axes:
    """Repeat the labels as the values are."""
    axes = [*map(free, [1] * (out.dim() - x.dim())), *trace[x]]
    asked = trace.call.repeats(out.dim()) or times
    return [_repeated(trace, *pair) for pair in zip(axes, asked, strict=True)]


def _repeated(trace: LabelledTensors, axis: Labels, times: int) -> Labels:
    """Return the labels of an axis that is repeated a requested number of times."""
    number = operator.index(times)
    repeated = np.tile(axis, number)
    if not adapts(times):
        return axis if number == 1 else either(repeated, constant(len(repeated)))
    if len(axis) == 1 and not is_tracked(axis):
        return as_asked(trace, number, times)
    times.pin("a number of repetitions that is computed from its size")
    return either(repeated, fixed(len(repeated)))


# Between channels and positions


@rule("pixel_shuffle")
def pixel_shuffle(trace: LabelledTensors, out: Tensor, x: Tensor, factor: int) -> Axes:
    """Tie the ``factor ** 2`` channels that become one."""
    *batch, channels, height, width = trace[x]
    _pin_places(trace, height, width)
    shuffled = trace.tie(channels.reshape(-1, factor**2).T)
    return [*batch, shuffled, *map(constant, out.shape[-2:])]


@rule("pixel_unshuffle")
def pixel_unshuffle(trace: LabelledTensors, out: Tensor, x: Tensor, factor: int) -> Axes:
    """Repeat each label for the ``factor ** 2`` channels that it becomes."""
    *batch, channels, height, width = trace[x]
    _pin_places(trace, height, width)
    return [*batch, np.repeat(channels, factor**2), *map(constant, out.shape[-2:])]


@rule("im2col")
def im2col(trace: LabelledTensors, out: Tensor, x: Tensor, kernel: Any, *args: Any) -> Axes:
    """Repeat each label for the positions under a kernel."""
    *batch, channels, height, width = trace[x]
    _pin_places(trace, height, width)
    return [*batch, np.repeat(channels, math.prod(kernel)), constant(out.shape[-1])]


@rule("col2im")
def col2im(
    trace: LabelledTensors, out: Tensor, x: Tensor, size: Any, kernel: Any, *args: Any
) -> Axes:
    """Tie the positions under a kernel, which become one channel."""
    *batch, columns, places = trace[x]
    _pin_places(trace, places)
    channels = trace.tie(columns.reshape(-1, math.prod(kernel)).T)
    return [*batch, channels, *map(constant, out.shape[-2:])]


def _pin_places(trace: LabelledTensors, *axes: Labels) -> None:
    for axis in axes:
        trace.pin(axis, "pooled or resampled along this axis")


@rule("unfold")
def unfold(trace: LabelledTensors, out: Tensor, x: Tensor, dim: int, size: int, step: int) -> Axes:
    """Add an axis for the windows over another."""
    axes = list(trace[x])
    if not axes:
        return [constant(size)]
    dim %= x.dim()
    trace.pin(axes[dim], "cut into windows")
    axes[dim] = constant(out.shape[dim])
    return [*axes, constant(size)]


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(trace: LabelledTensors, out: Tensor, x: Tensor, groups: int) -> Axes:
    """Tie channels at the same offset of each group, which become neighbours."""
    batch, channels, *rest = trace[x]
    return [batch, np.repeat(trace.tie(channels.reshape(groups, -1)), groups), *rest]
