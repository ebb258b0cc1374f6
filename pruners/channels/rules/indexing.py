"""Rules of operations on parts of tensors: concatenation, slices, indexing."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from pruners.channels.kept_sizes import AttributeSize, unite_with_size
from pruners.channels.kinds import EMBEDDING
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
    without_axes,
)
from pruners.channels.rules.registry import rule, tensors_in
from pruners.channels.sizes import Call, Width, adapts

# Concatenation and splits


@rule("cat", "concat", "concatenate")
def cat(trace: LabelledTensors, out: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> Axes:
    """Concatenate labels along one axis and unite the others."""
    parts = [trace[tensor] for tensor in tensors if tensor.dim() == out.dim()]
    along = [axes[dim] for axes in parts]
    if any(map(is_tracked, along)):
        # Next to channels, a part without channels keeps its size.
        along = [np.where(axis == FREE, FIXED, axis) for axis in along]
    result = [trace.unite(*axes) for axes in zip(*_omit(parts, dim % out.dim()), strict=True)]
    result.insert(dim % out.dim(), np.concatenate(along))
    return result


def _omit(parts: Sequence[Axes], dim: int) -> list[Axes]:
    return [axes[:dim] + axes[dim + 1 :] for axes in parts]


@rule("stack")
def stack(trace: LabelledTensors, out: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> Axes:
    """Unite all axes and insert a new one."""
    axes = [trace.unite(*same) for same in zip(*(trace[t] for t in tensors), strict=True)]
    axes.insert(dim % out.dim(), constant(len(tensors)))
    return axes


@rule("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes")
@rule("chunk", "unsafe_chunk")
def split(
    trace: LabelledTensors, out: Sequence[Tensor], x: Tensor, sizes: Any, dim: int = 0
) -> tuple[Axes, ...]:
    """Give each part its stretch of the labels."""
    axes, axis = trace[x], trace[x][dim]
    bounds = np.cumsum([part.shape[dim] for part in out])[:-1]
    parts: list[Labels] = np.split(axis, bounds)
    if is_tracked(axis):
        _keep_cuts(trace, axis, parts)
    dim %= x.dim()
    return tuple([*axes[:dim], part, *axes[dim + 1 :]] for part in parts)


def _keep_cuts(trace: LabelledTensors, axis: Labels, parts: list[Labels]) -> None:
    """Ensure that a split still cuts at the same places after a removal."""
    if trace.call.is_split:
        asked = trace.call.argument(1, "split_size_or_sections", "split_size", "split_sizes")
        sizes = [asked] * len(parts) if isinstance(asked, int) else list(asked)
        for part, size in zip(parts, sizes, strict=True):
            # The last of equal parts may be shorter.
            if adapts(size) and size.follows and operator.index(size) == len(part):
                unite_with_size(trace, part, size)
            else:
                trace.pin(part, "split at sizes that are written in the code")
    elif not trace.call.is_known:
        trace.pin(axis, "split at sizes that are written in the code")
    elif len({len(part) for part in parts}) == 1:
        trace.tie(np.stack(parts))
    else:
        trace.pin(axis, "split into unequal parts")


@rule("glu")
def glu(trace: LabelledTensors, out: Tensor, x: Tensor, dim: int = -1) -> Axes:
    """Tie each channel of the first half with its gate in the second."""
    axes = list(trace[x])
    axes[dim] = trace.tie(axes[dim].reshape(2, -1))
    return axes


@rule("constant_pad_nd")
def pad(
    trace: LabelledTensors, out: Tensor, x: Tensor, margins: Sequence[int], value: float = 0
) -> Axes:
    """Add a fixed number of constants at the ends, or remove positions there."""
    axes = list(trace[x])
    pairs = zip(margins[::2], margins[1::2], strict=True)
    for dim, (before, after) in zip(range(-1, -x.dim() - 1, -1), pairs, strict=False):
        axis = axes[dim]
        if is_tracked(axis) and min(before, after) < 0:
            trace.pin(axis, "sliced at positions that are written in the code")
        kept = axis[max(0, -before) : len(axis) - max(0, -after)]
        new = fixed if is_tracked(axis) else free
        axes[dim] = np.concatenate([new(max(0, before)), kept, new(max(0, after))])
    return axes


# Slices


@rule("slice")
def slice_axis(
    trace: LabelledTensors,
    out: Tensor,
    x: Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Axes:
    """Give the part its stretch of the labels."""
    axes = list(trace[x])
    axis, axes[dim] = axes[dim], axes[dim][slice(start, end, step)]
    first, last = start or 0, len(axis) if end is None else end
    if is_tracked(axis) and trace.call.function in (torch.narrow, torch.Tensor.narrow):
        _keep_narrow(trace, out, axis, first, last)
    elif is_tracked(axis) and len(axes[dim]) < len(axis):
        if step > 1 and len(axis) % step == 0 and 0 <= first < step and last >= len(axis):
            # It takes one of each run of neighbours: a run is removed as a whole.
            axes[dim] = trace.tie(axis.reshape(-1, step).T)
        else:
            _keep_bounds(trace, out, axis, dim, (first, last, step))
    return axes


def _keep_bounds(
    trace: LabelledTensors, out: Tensor, axis: Labels, dim: int, bounds_and_step: Sequence[int]
) -> None:
    """Ensure that a slice, if it is used at all, keeps its bounds after a removal."""
    start, end, step = bounds_and_step
    size = len(axis)
    widths = {
        operator.index(width) + size * (operator.index(width) < 0): width
        for width in _asked_bounds(trace.call, dim)
        if width.follows
    }
    bounds = [bound + size * (bound < 0) for bound in (start, end) if bound != 0 and bound < size]
    if step != 1 or any(bound not in widths for bound in bounds):
        trace.pin_on_use(out, axis, "sliced at positions that are written in the code")
        return
    for bound in bounds:
        part = axis[:bound] if operator.index(widths[bound]) > 0 else axis[bound:]
        unite_with_size(trace, part, widths[bound])


def _keep_narrow(trace: LabelledTensors, out: Tensor, axis: Labels, start: int, end: int) -> None:
    """Ensure that ``narrow`` keeps the start and the length of its stretch after a removal."""
    asked = trace.call.argument(2, "start"), trace.call.argument(3, "length")
    written = []
    for part, size in zip((axis[:start], axis[start:end]), asked, strict=True):
        if adapts(size) and size.follows and operator.index(size) == len(part):
            unite_with_size(trace, part, size)
        else:
            written.append(part)
    if written:
        reason = "sliced at positions that are written in the code"
        trace.pin_on_use(out, np.concatenate(written), reason)


def _asked_bounds(call: Call, dim: int) -> list[Width]:
    """Return the numbers in the code that the bounds of a slice may come from."""
    asked: Sequence[Any]
    if call.function in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
        own = _slice_of(call.argument(0), call.argument(1), dim)
        asked = [own.start, own.stop] if own else []
    else:
        asked = [width for width in call.widths() if not isinstance(width, AttributeSize)]
    return [*filter(adapts, asked)]


def _slice_of(x: Tensor, index: Any, dim: int) -> slice | None:
    """Return the slice that the code gives for an axis of the result."""
    entries = index if isinstance(index, tuple) else (index,)
    named = [entry for entry in entries if entry is not None and entry is not Ellipsis]
    axis = 0
    for entry in entries:
        if isinstance(entry, slice) and axis == dim:
            return entry
        if entry is Ellipsis:
            axis += x.dim() - len(named)
        elif not isinstance(entry, int):  # an integer drops its axis
            axis += 1
    return None


@rule("select")
def select(trace: LabelledTensors, out: Tensor, x: Tensor, dim: int, index: int) -> Axes:
    """Drop an axis, of which only one position is read."""
    trace.pin_on_use(out, trace[x][dim], "a single channel is taken by its number")
    return without_axes(trace[x], [dim % x.dim()], keep=False)


@rule("unbind")
def unbind(
    trace: LabelledTensors, out: Sequence[Tensor], x: Tensor, dim: int = 0
) -> tuple[Axes, ...]:
    """Drop an axis, of which every position is read by its number."""
    return tuple(select(trace, part, x, dim, number) for number, part in enumerate(out))


# Positions given by tensors


@rule("embedding")
def embedding(
    trace: LabelledTensors, out: Tensor, weight: Tensor, index: Tensor, *args: Any
) -> Axes:
    """Pin the vocabulary; the features are channels."""
    vocabulary, features = trace[weight]
    trace.pin(vocabulary, "the vocabulary of an embedding")
    trace.mark(EMBEDDING, features)
    return [*trace[index], features]


@rule("_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(
    trace: LabelledTensors, out: Any, weight: Tensor, index: Tensor, *args: Any
) -> Axes:
    """Pin the vocabulary; the features are channels."""
    vocabulary, features = trace[weight]
    trace.pin(vocabulary, "the vocabulary of an embedding")
    trace.mark(EMBEDDING, features)
    return [constant(out[0].shape[0]), features]


@rule("index", "_unsafe_index")
def index(trace: LabelledTensors, out: Tensor, x: Tensor, indices: Sequence[Tensor | None]) -> Axes:
    """Pin the axes that are indexed by tensors."""
    axes = trace[x]
    taken = _indexed(trace, indices)
    for dim in taken:
        trace.pin(axes[dim], "indexed by a tensor")
    kept = [axis for dim, axis in enumerate(axes) if dim not in taken]
    where = taken[0] if _are_together(indices) else 0
    new = out.dim() - len(kept)
    return [*kept[:where], *map(fixed, out.shape[where : where + new]), *kept[where:]]


def _indexed(trace: LabelledTensors, indices: Sequence[Tensor | None]) -> list[int]:
    """Return which axes are indexed, and pin the axes of the indices.

    A mask replaces as many axes as it has.
    """
    taken: list[int] = []
    dim = 0
    for index in indices:
        width = index.dim() if _is_mask(index) else 1
        if index is not None:
            taken += range(dim, dim + width)
            for axis in trace[index]:
                trace.pin(axis, "positions that are taken from a tensor")
        dim += width
    return taken


def _is_mask(index: Tensor | None) -> TypeGuard[Tensor]:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _are_together(indices: Sequence[Tensor | None]) -> bool:
    """Return whether the indexed axes are adjacent: the result has the new axes at that place."""
    given = [place for place, index in enumerate(indices) if index is not None]
    return given == list(range(given[0], given[-1] + 1))


@rule("index_put", "_unsafe_index_put")
def index_put(
    trace: LabelledTensors,
    out: Tensor,
    x: Tensor,
    indices: Sequence[Tensor | None],
    values: Tensor,
    *args: Any,
) -> Axes:
    """Pin the axes that are indexed, and unite the others with those of the values."""
    axes = list(trace[x])
    if len(indices) == 1 and values.numel() == 1 and _is_mask(indices[0]):
        mask = trace[indices[0]]
        return [*map(trace.unite, axes[: len(mask)], mask), *axes[len(mask) :]]
    taken = _indexed(trace, indices)
    for dim in taken:
        trace.pin(axes[dim], "written at places given by a tensor")
    others = [dim for dim in range(x.dim()) if dim not in taken]
    behind = [dim for dim in others if dim > max(taken)] if _are_together(indices) else others
    given = trace[values]
    for place, axis in enumerate(reversed(given), start=1):
        same = behind[-place] if place <= len(behind) else None
        if same is not None and len(axis) == len(axes[same]):
            axes[same] = trace.unite(axes[same], axis)
        else:
            trace.pin(axis, "written at places given by a tensor")
    for before in set(others) - set(behind) if len(given) > len(behind) else ():
        trace.pin(axes[before], "written at places given by a tensor")
    return axes


@rule("index_select")
def index_select(trace: LabelledTensors, out: Tensor, x: Tensor, dim: int, index: Tensor) -> Axes:
    """Pin the axis that is indexed."""
    axes = list(trace[x])
    trace.pin(axes[dim], "indexed by a tensor")
    for axis in trace[index]:
        trace.pin(axis, "positions that are taken from a tensor")
    axes[dim] = fixed(out.shape[dim])
    return axes


@rule("gather")
def gather(
    trace: LabelledTensors, out: Tensor, x: Tensor, dim: int, index: Tensor, **kwargs: Any
) -> Axes:
    """Pin the axis that is indexed, and unite the others with those of the index."""
    trace.pin(trace[x][dim], "indexed by a tensor")
    return _along_others(trace, dim, trace[index], trace[x])


@rule("scatter", "scatter_add", "scatter_reduce")
def scatter(
    trace: LabelledTensors, out: Tensor, x: Tensor, dim: int, index: Tensor, *args: Any, **kw: Any
) -> Axes:
    """Pin the axis that is written to, and unite the others with those of the source."""
    sources = [trace[source] for source in tensors_in([index, args]) if source.dim()]
    for axes in (trace[x], *sources):
        trace.pin(axes[dim], "written at places given by a tensor")
    return _along_others(trace, dim, trace[x], *sources)


def _along_others(trace: LabelledTensors, dim: int, target: Axes, *sources: Axes) -> Axes:
    """Unite equally long axes other than ``dim``, pin the rest, and return the target's."""
    result = list(target)
    for axes in sources:
        for other in set(range(len(result))) - {dim % len(result)}:
            if len(axes[other]) == len(result[other]):
                result[other] = trace.unite(result[other], axes[other])
            else:
                trace.pin(axes[other], "cut to the extent of an index")
                trace.pin(result[other], "cut to the extent of an index")
    return result


@rule("index_add", "index_copy", "index_reduce")
def index_add(
    trace: LabelledTensors,
    out: Tensor,
    x: Tensor,
    dim: int,
    index: Tensor,
    source: Tensor,
    *args: Any,
    **kwargs: Any,
) -> Axes:
    """Pin the axis that is written to, and unite the others with those of the source."""
    axes = list(trace[x])
    for axis in (axes[dim], trace[source][dim], *trace[index]):
        trace.pin(axis, "written at places given by a tensor")
    for other in set(range(x.dim())) - {dim % x.dim()}:
        axes[other] = trace.unite(axes[other], trace[source][other])
    return axes


@rule("index_fill")
def index_fill(
    trace: LabelledTensors, out: Tensor, x: Tensor, dim: int, index: Tensor, value: Any
) -> Axes:
    """Pin the axis that is written to."""
    for axis in (trace[x][dim], *trace[index]):
        trace.pin(axis, "written at places given by a tensor")
    return trace[x]


@rule("nonzero", "unique", "_unique2", "unique_dim", "unique_consecutive", "masked_select")
@rule("masked_scatter", "multinomial", "bincount", "histc", "take", "put")
def by_value(trace: LabelledTensors, out: Any, *args: Any, **kwargs: Any) -> tuple[Axes, ...]:
    """Pin all axes of all operands, because the result depends on all values."""
    for tensor in tensors_in([args, kwargs]):
        for axis in trace[tensor]:
            trace.pin(axis, "taken or written in the order of the values")
    return tuple([*map(fixed, result.shape)] for result in tensors_in(out))


@rule("bucketize")
def bucketize(trace: LabelledTensors, out: Tensor, x: Any, bounds: Tensor, **kwargs: Any) -> Axes:
    """Pin the bounds."""
    trace.pin(trace[bounds][0], "bounds that values are sorted into")
    return trace[x] if isinstance(x, Tensor) else []


@rule("searchsorted")
def searchsorted(
    trace: LabelledTensors, out: Tensor, bounds: Tensor, x: Any, **kwargs: Any
) -> Axes:
    """Pin the bounds."""
    for axis in trace[bounds]:
        trace.pin(axis, "bounds that values are sorted into")
    return trace[x] if isinstance(x, Tensor) else []
