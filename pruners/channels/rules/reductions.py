"""Rules of operations along an axis: normalisation, reductions, ranking, pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pruners.channels.kept_sizes import stays_as_parts, unite_with_size
from pruners.channels.labels import (
    Axes,
    LabelledTensors,
    constant,
    fixed,
    without_axes,
)
from pruners.channels.rules.pointwise import elementwise
from pruners.channels.rules.registry import RULES, Rule, rule, tensors_in
from pruners.channels.sizes import adapts

# Normalisation


@rule("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm", "batch_norm")
@rule("_native_batch_norm_legit", "_native_batch_norm_legit_no_training")
@rule("_batch_norm_with_update", "_batch_norm_no_update")
def batch_norm(trace: LabelledTensors, out: Any, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    """Unite the channels with those of scale, shift and statistics."""
    batch, channels, *rest = trace[x]
    vectors = [trace[tensor][0] for tensor in tensors_in([args, kwargs])]
    return [batch, trace.unite(channels, *vectors), *rest]


@rule("native_layer_norm", "_fused_rms_norm")
def layer_norm(
    trace: LabelledTensors, out: Any, x: Tensor, shape: Sequence[int], *args: Any, **kwargs: Any
) -> Axes:
    """Unite channels with those of scale and shift; without these, pin them."""
    vectors = tensors_in([args, kwargs])
    if not vectors and trace.call.function not in NORMALISED_SHAPES:
        for axis in trace[x][-len(shape) :]:
            trace.pin(axis, "normalised over a shape that no tensor gives")
    return trace.broadcast(x.shape, trace[x], *(trace[vector] for vector in vectors))


NORMALISED_SHAPES = frozenset({F.layer_norm, torch.layer_norm, F.rms_norm, torch.rms_norm})
"""The functions with an argument for the shape over which they normalise."""


def unite_with_normalised_shape(trace: LabelledTensors) -> None:
    """Unite the last axes with the sizes in the argument of such a function."""
    x, shape = trace.call.argument(0, "input"), trace.call.argument(1, "normalized_shape")
    for axis, size in zip(trace[x][-len(shape) :], shape, strict=True):
        if adapts(size):
            unite_with_size(trace, axis, size)
        else:
            trace.pin(axis, "normalised over a shape that is written in the code")


@rule("native_group_norm")
def group_norm(
    trace: LabelledTensors,
    out: Any,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    n: int,
    c: int,
    elements: int,
    groups: int,
    eps: float,
) -> Axes:
    """Tie channels at the same offset of each group, unless every channel is a group."""
    batch, channels, *rest = trace[x]
    vectors = [trace[tensor][0] for tensor in (weight, bias) if tensor is not None]
    asked = trace.call.argument(1, "num_groups")
    if groups == len(channels) and adapts(asked) and asked.follows:
        unite_with_size(trace, channels, asked)
    elif groups < len(channels) and not vectors:
        trace.pin(channels, "normalised in groups that no scale counts")
    elif groups < len(channels) and stays_as_parts(asked):
        trace.tie(channels.reshape(groups, -1))
    else:
        trace.pin(channels, "as many groups as channels, a number that is written in the code")
    return [batch, trace.unite(channels, *vectors), *rest]


NORMS = frozenset(
    name for name, own in RULES.items() if own in (batch_norm, layer_norm, group_norm)
)
"""The names of normalisations. Gates come after them."""


# Reductions


@rule("sum", "mean", "prod", "amax", "amin", "max", "min", "logsumexp", "var", "std", "any", "all")
@rule("var_mean", "std_mean", "median", "nanmedian", "mode", "norm", "linalg_vector_norm")
@rule("aminmax", "nansum", "nanmean", "count_nonzero", "_is_all_true", "_is_any_true")
def reduction(trace: LabelledTensors, out: Any, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    """Drop the reduced axes, or leave one position of each.

    If the operation also returns positions, a use of them pins the channels.
    """
    results = tensors_in([out])
    if len(tensors_in([args])) == 1:  # max and min of two tensors
        return elementwise(trace, out, x, *args)
    if not results or results[0].dim() == 0:
        return []
    dims = _reduced_dims(x, args, kwargs)
    for taken in results[1:] if x.is_floating_point() else ():
        if not taken.is_floating_point():
            along = np.concatenate([trace[x][dim] for dim in dims])
            trace.pin_on_use(taken, along, "the position of a channel is asked for")
    return without_axes(trace[x], dims, keep=results[0].dim() == x.dim())


@rule("argmax", "argmin")
def position(trace: LabelledTensors, out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    """Pin the channels whose positions are returned."""
    for dim in _reduced_dims(x, args, kwargs):
        trace.pin(trace[x][dim], "the position of a channel is asked for")
    return reduction(trace, out, x, *args, **kwargs)


def _reduced_dims(x: Tensor, args: Sequence[Any], kwargs: dict[str, Any]) -> set[int]:
    """Return the axes over which an operation reduces: all if it names none."""
    candidates = [*args, kwargs.get("dim")]
    named: Any = next((a for a in candidates if isinstance(a, (list, tuple)) and a), None)
    if named is None:
        integers = [a for a in candidates if isinstance(a, int) and not isinstance(a, bool)]
        named = integers[:1] or range(x.dim())
    return {dim % x.dim() for dim in named}


# Order along an axis


@rule("cumsum", "cumprod", "logcumsumexp", "cummax", "cummin")
def cumulative(trace: LabelledTensors, out: Any, x: Tensor, dim: int, **kwargs: Any) -> Axes:
    """Pin the channels along the axis, whose order matters."""
    trace.pin(trace[x][dim], "a sum in the order of channels")
    return trace[x]


@rule("sort", "argsort")
def ranked(
    trace: LabelledTensors, out: Any, x: Tensor, dim: int = -1, *args: Any, **kwargs: Any
) -> Axes:
    """Pin the channels along the axis that is sorted."""
    if x.dim():
        trace.pin(trace[x][kwargs.get("dim", dim)], "ranked or taken by its position")
    return trace[x]


@rule("topk")
def topk(
    trace: LabelledTensors, out: Any, x: Tensor, k: int, dim: int = -1, *args: Any, **kwargs: Any
) -> Axes:
    """Pin the channels along the axis whose largest values are taken."""
    axes = list(ranked(trace, out, x, dim))
    if x.dim():
        axes[dim] = fixed(k)
    return axes


@rule("kthvalue")
def kthvalue(
    trace: LabelledTensors, out: Any, x: Tensor, k: int, dim: int = -1, keepdim: bool = False
) -> Axes:
    """Pin the axis whose k-th smallest value is taken."""
    trace.pin(trace[x][dim], "ranked or taken by its position")
    return reduction(trace, out, x, dim, keepdim)


@rule("tril", "triu")
def triangle(trace: LabelledTensors, out: Tensor, x: Tensor, diagonal: int = 0) -> Axes:
    """Pin rows and columns, because their positions decide what is zero."""
    for axis in trace[x][-2:]:
        trace.pin(axis, "ranked or taken by its position")
    return trace[x]


# Pooling, resampling, transforms


def _spatial(dims: int) -> Rule:
    """Return the rule of an operation that changes only the last axes."""

    def spatial(trace: LabelledTensors, out: Any, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
        sizes = tensors_in(out)[0].shape[-dims:]
        for axis in trace[x][-dims:]:
            trace.pin(axis, "pooled or resampled along this axis")
        for other in tensors_in([args, kwargs]):
            for along, axis in enumerate(trace[other]):
                if other.shape == x.shape and along < x.dim() - dims:
                    trace.unite(trace[x][along], axis)
                else:
                    trace.pin(axis, "pooled or resampled along this axis")
        return [*trace[x][:-dims], *map(constant, sizes)]

    return spatial


for _dims, _names in {
    1: "avg_pool1d adaptive_avg_pool1d max_pool1d_with_indices max_pool1d upsample_linear1d "
    "upsample_nearest1d _upsample_nearest_exact1d reflection_pad1d replication_pad1d",
    2: "avg_pool2d _adaptive_avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d max_pool2d "
    "max_pool2d_with_indices fractional_max_pool2d upsample_nearest2d upsample_bilinear2d "
    "upsample_bicubic2d _upsample_nearest_exact2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa "
    "reflection_pad2d replication_pad2d grid_sampler_2d max_unpool2d",
    3: "avg_pool3d _adaptive_avg_pool3d adaptive_avg_pool3d adaptive_max_pool3d max_pool3d "
    "max_pool3d_with_indices upsample_nearest3d upsample_trilinear3d _upsample_nearest_exact3d "
    "reflection_pad3d replication_pad3d grid_sampler_3d max_unpool3d",
}.items():
    rule(*_names.split())(_spatial(_dims))


@rule("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool")
def regions(
    trace: LabelledTensors, out: Any, x: Tensor, boxes: Tensor, *args: Any
) -> tuple[Axes, ...]:
    """Pool regions of a feature map, and pin channels if they belong to positions in a region."""
    _, channels, *places = trace[x]
    result = tensors_in(out)[0]
    if result.shape[1] != len(channels):
        trace.pin(channels, "a single channel is taken by its number")
        channels = fixed(result.shape[1])
    for axis in (*places, *trace[boxes][1:]):
        trace.pin(axis, "pooled or resampled along this axis")
    axes = [trace[boxes][0], channels, *map(constant, result.shape[2:])]
    return tuple(axes for _ in tensors_in(out))


@rule("_fft_r2c", "_fft_c2c", "_fft_c2r")
def fourier(
    trace: LabelledTensors, out: Tensor, x: Tensor, dims: Sequence[int], *args: Any
) -> Axes:
    """Pin the axes that are transformed."""
    axes = list(trace[x])
    for dim in dims:
        trace.pin(axes[dim], "transformed along this axis")
        axes[dim] = constant(out.shape[dim])
    return axes
