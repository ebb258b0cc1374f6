"""What each operation does to labels.

The rule of an operation is a function ``rule(trace, out, *args, **kwargs)``: it gets the labels of
all tensors, the operation's result, and its arguments as `torch.ops.aten` documents them. It
unites or pins labels and returns those of the result: a list with one array per axis, or a tuple
of such lists where the operation returns several labelled tensors. Its name is the operation's
name in ``aten``; the in-place variant, with a trailing underscore, shares it.

To teach the tracer a new operation, add a function here, or pass it as ``extra_rules``::

    def renorm(trace, out, x, p, dim, maxnorm):
        return trace[x]  # rows are scaled: no channel meets another

    trace_channels(model, inputs, extra_rules={"renorm": renorm})
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeGuard, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pruners.channels.expressions import PARTS
from pruners.channels.kept_sizes import AttributeSize
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
)
from pruners.channels.reshaping import reshape, unite_with_size
from pruners.channels.sizes import Call, Width, adapts

Rule = Callable[..., Axes | tuple[Axes, ...]]
AnyRule = TypeVar("AnyRule", bound=Rule)

RULES: dict[str, Rule] = {}
"""The rules of operations, by their names in ``torch.ops.aten``."""

FUNCTION_RULES: dict[Callable[..., Any], Rule] = {}
"""The rules of functions whose parts, taken one by one, would lose what belongs together."""


def rule(*names: str) -> Callable[[AnyRule], AnyRule]:
    """Make a function the rule of the operations with these names."""

    def register(function: AnyRule) -> AnyRule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def function_rule(*functions: Callable[..., Any]) -> Callable[[AnyRule], AnyRule]:
    """Make a function the rule of calls that are not to be looked into."""

    def register(function: AnyRule) -> AnyRule:
        FUNCTION_RULES.update(dict.fromkeys(functions, function))
        return function

    return register


def tensors_in(arguments: Any) -> list[Tensor]:
    """Return all tensors among nested arguments."""
    if isinstance(arguments, Tensor):
        return [arguments]
    if isinstance(arguments, dict):
        arguments = list(arguments.values())
    if isinstance(arguments, (tuple, list)):
        return [tensor for argument in arguments for tensor in tensors_in(argument)]
    return []


# Position by position


@rule("_softmax", "_log_softmax", "_safe_softmax", "native_dropout", "masked_fill", "copy")
@rule("clone", "_to_copy", "contiguous", "zeros_like", "ones_like", "empty_like", "full_like")
@rule(
    "hardswish", "hardsigmoid", "hardtanh", "relu6", "elu", "selu", "celu", "gelu", "silu", "mish"
)
@rule("softplus", "leaky_relu", "threshold", "log_sigmoid_forward", "softshrink", "hardshrink")
@rule("_weight_norm_interface")
@rule("rand_like", "randn_like", "bernoulli", "nan_to_num", "lerp", "where", "dropout")
def elementwise(trace: LabelledTensors, out: Any, *args: Any, **kwargs: Any) -> Axes:
    """Unite the operands' axes as they are broadcast; every pointwise operation has this rule."""
    shape = max((tensor.shape for tensor in tensors_in(out)), key=len)
    return trace.broadcast(shape, *(trace[t] for t in tensors_in([args, kwargs])))


@rule("fill", "zero", "uniform", "exponential", "cauchy", "log_normal", "geometric")
@rule("detach", "alias", "lift_fresh", "lift", "embedding_renorm")
@rule("_conj", "_conj_physical", "resolve_conj", "_neg_view", "resolve_neg")
def unchanged(trace: LabelledTensors, out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    """Labels are about places, whatever values are there."""
    return trace[x]


@rule("zeros", "ones", "empty", "full", "rand", "randn", "randint", "scalar_tensor")
@rule("new_zeros", "new_ones", "new_empty", "new_full")
@rule("empty_strided", "new_empty_strided", "empty_permuted")
def created(trace: LabelledTensors, out: Tensor, *args: Any, **kwargs: Any) -> Axes:
    """Let sizes that the code has read from tensors follow them; those written in it stay."""
    requested = trace.call.shape(out.dim())
    if requested is None:
        return _created_within(trace, out)
    return [_as_asked(trace, *sizes) for sizes in zip(out.shape, requested, strict=True)]


def _as_asked(trace: LabelledTensors, size: int, asked: int) -> Labels:
    """Return the labels of a new axis whose size the code has asked for."""
    return unite_with_size(trace, free(size), asked) if adapts(asked) else constant(size)


def _created_within(trace: LabelledTensors, out: Tensor) -> Axes:
    """Label what a function of torch has made for itself: it adapts if its arguments do.

    What compiled code has made stays: its numbers cannot be told apart.
    """
    widths = trace.call.widths()
    for width in widths:
        width.pin("a number that is computed from its size")
    operands = tensors_in([trace.call.args, trace.call.kwargs])
    meets_channels = any(is_tracked(axis) for tensor in operands for axis in trace[tensor])
    return [*map(free if meets_channels and not widths else constant, out.shape)]


@rule("arange", "range", "linspace", "logspace", "randperm", "one_hot")
@rule("hann_window", "hamming_window", "blackman_window", "bartlett_window", "kaiser_window")
def positions(trace: LabelledTensors, out: Tensor, *args: Any, **kwargs: Any) -> Axes:
    """Pin the axes over which values are made that depend on the place."""
    for width in trace.call.widths():
        width.pin("values that depend on the position of a channel")
    return _created_within(trace, out)


@rule("normal")
def normal(trace: LabelledTensors, out: Tensor, *args: Any, **kwargs: Any) -> Axes:
    """Follow the tensor of means or of deviations, if there is one; else the size asked for."""
    given = tensors_in([args, kwargs])
    return elementwise(trace, out, *given) if given else created(trace, out)


@rule("eye")
def eye(trace: LabelledTensors, out: Tensor, *args: Any, **kwargs: Any) -> Axes:
    """Let rows and columns be the same channels."""
    rows, columns = created(trace, out)
    if len(rows) == len(columns) and is_tracked(rows):
        return [trace.unite(rows, columns)] * 2
    return [*map(fixed, out.shape)]


@rule("cumsum", "cumprod", "logcumsumexp", "cummax", "cummin")
def cumulative(trace: LabelledTensors, out: Any, x: Tensor, dim: int, **kwargs: Any) -> Axes:
    """Pin the channels along the axis that is gone through in order."""
    trace.pin(trace[x][dim], "a sum in the order of channels")
    return trace[x]


@rule("roll")
def roll(
    trace: LabelledTensors, out: Tensor, x: Tensor, shifts: Any, dims: Sequence[int] = ()
) -> Axes:
    """Pin the channels along the axes that are rolled: all, where none is named."""
    for dim in dims or range(x.dim()):
        trace.pin(trace[x][dim], "rolled by a number of channels")
    return trace[x]


@rule("sort", "argsort")
def ranked(
    trace: LabelledTensors, out: Any, x: Tensor, dim: int = -1, *args: Any, **kwargs: Any
) -> Axes:
    """Pin the channels along the axis that is put in order."""
    if x.dim():
        trace.pin(trace[x][kwargs.get("dim", dim)], "ranked or taken by its position")
    return trace[x]


@rule("topk")
def topk(
    trace: LabelledTensors, out: Any, x: Tensor, k: int, dim: int = -1, *args: Any, **kwargs: Any
) -> Axes:
    """Pin the channels along the axis whose largest places are taken."""
    axes = list(ranked(trace, out, x, dim))
    if x.dim():
        axes[dim] = fixed(k)
    return axes


@rule("tril", "triu")
def triangle(trace: LabelledTensors, out: Tensor, x: Tensor, diagonal: int = 0) -> Axes:
    """Pin the rows and columns, whose positions decide what is zero."""
    for axis in trace[x][-2:]:
        trace.pin(axis, "ranked or taken by its position")
    return trace[x]


@rule("flip")
def flip(trace: LabelledTensors, out: Tensor, x: Tensor, dims: Sequence[int]) -> Axes:
    """Reverse the labels with the axis."""
    flipped = {dim % x.dim() for dim in dims}
    return [axis[::-1] if dim in flipped else axis for dim, axis in enumerate(trace[x])]


# Sums over products


@rule("mm", "bmm")
def matrix_product(trace: LabelledTensors, out: Tensor, left: Tensor, right: Tensor) -> Axes:
    """Unite the axes that are summed over."""
    *batch, rows, inner = trace[left]
    *other_batch, same_inner, columns = trace[right]
    trace.unite(inner, same_inner)
    return [*map(trace.unite, batch, other_batch), rows, columns]


@rule("addmm", "baddbmm")
def matrix_product_plus(
    trace: LabelledTensors, out: Tensor, bias: Tensor, left: Tensor, right: Tensor, **kwargs: Any
) -> Axes:
    """Add a bias to a matrix product."""
    return trace.broadcast(out.shape, trace[bias], matrix_product(trace, out, left, right))


@rule("mv", "dot", "vdot")
def matrix_vector_product(trace: LabelledTensors, out: Tensor, left: Tensor, right: Tensor) -> Axes:
    """Unite the axes that are summed over."""
    *rows, inner = trace[left]
    trace.unite(inner, trace[right][0])
    return rows


@rule("addmv")
def matrix_vector_product_plus(
    trace: LabelledTensors, out: Tensor, bias: Tensor, left: Tensor, right: Tensor, **kwargs: Any
) -> Axes:
    """Add a bias to the product of a matrix and a vector."""
    return trace.broadcast(out.shape, trace[bias], matrix_vector_product(trace, out, left, right))


@rule("linear")
def linear(
    trace: LabelledTensors, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Axes:
    """Unite the incoming features with the columns of the weight."""
    *batch, incoming = trace[x]
    outgoing, same_incoming = trace[weight]
    trace.unite(incoming, same_incoming)
    return [*batch, outgoing if bias is None else trace.unite(outgoing, trace[bias][0])]


@rule("convolution", "_convolution", "convolution_overrideable")
def convolution(
    trace: LabelledTensors,
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    *backend: bool,
) -> Axes:
    """Tie channels at the same offset of each group: groups stay, and stay equally wide."""
    batch, incoming = trace[x][:2]
    first, second, *kernel = trace[weight]
    for axis in kernel:
        trace.pin(axis, "the extent of a kernel")
    for axis in trace[x][2:]:
        trace.pin(axis, "a kernel slides over them")
    asked = _asked_groups(trace, groups)
    if asked is not None and len(incoming) > groups and not _stays(asked):
        outgoing = _whole_groups(trace, incoming, first, second, asked, transposed)
    elif groups == len(incoming) > 1:
        if asked is None:
            trace.pin(incoming, "as many groups as channels, a number that is written in the code")
        else:
            unite_with_size(trace, incoming, asked)
        outgoing = _depthwise(trace, incoming, first, second, out.shape[1], transposed)
    else:
        sources = _tie_groups(trace, incoming, groups)
        if transposed:
            trace.unite(sources, _tie_groups(trace, first, groups))
            outgoing = np.tile(second, groups)
        else:
            trace.unite(sources, second)
            _tie_groups(trace, first, groups)
            outgoing = first
    if bias is not None:
        outgoing = trace.unite(outgoing, trace[bias][0])
    return [batch, outgoing, *map(constant, out.shape[2:])]


_GROUPS_ARGUMENT: dict[Any, int] = {
    torch.conv1d: 6,
    torch.conv2d: 6,
    torch.conv3d: 6,
    torch.conv_transpose1d: 6,
    torch.conv_transpose2d: 6,
    torch.conv_transpose3d: 6,
    torch.convolution: 8,
}
"""At which place convolutions take the number of groups."""


def _asked_groups(trace: LabelledTensors, groups: int) -> Width | None:
    """Return the number of groups if it is a size that changes with channels, else None."""
    place = _GROUPS_ARGUMENT.get(trace.call.function)
    asked = None if place is None else trace.call.argument(place, "groups")
    return asked if adapts(asked) and groups > 1 else None


def _whole_groups(
    trace: LabelledTensors,
    incoming: Labels,
    first: Labels,
    second: Labels,
    asked: Width,
    transposed: bool,
) -> Labels:
    """Remove groups as a whole where their number is that of the channels by their width."""
    groups = operator.index(asked)
    channels = asked.rows.reshape(-1) if asked.rows is not None else incoming[:0]
    same = len(channels) == len(incoming)
    if not (same and (trace.sets.roots(channels) == trace.sets.roots(incoming)).all()):
        asked.pin("a number of groups that is computed from its size")
        trace.pin(incoming, "a number of groups that is computed from its size")
    trace.pin(second, "the width of a group that is removed as a whole")
    whole = trace.tie(incoming.reshape(groups, -1).T)
    trace.unite(whole, *first.reshape(groups, -1).T)
    return np.repeat(whole, len(second)) if transposed else first


def _stays(groups: int) -> bool:
    """Tell whether a number of groups of several channels stays; one that a module keeps does."""
    if isinstance(groups, AttributeSize):
        groups.stay(PARTS)
        return True
    return not adapts(groups)


def _tie_groups(trace: LabelledTensors, axis: Labels, groups: int) -> Labels:
    """Tie channels at the same offset of each group, and return the labels of one group."""
    return trace.tie(axis.reshape(groups, -1))


def _depthwise(
    trace: LabelledTensors,
    incoming: Labels,
    first: Labels,
    second: Labels,
    outgoing: int,
    transposed: bool,
) -> Labels:
    """Unite each input channel with all the output channels that are made from it alone."""
    trace.pin(second, "the multiplier of a depthwise convolution")
    multiplier = outgoing // len(incoming)
    if transposed:
        return np.repeat(trace.unite(incoming, first), multiplier)
    return trace.unite(np.repeat(incoming, multiplier), first)


@function_rule(F.bilinear)
def bilinear(
    trace: LabelledTensors,
    out: Tensor,
    left: Tensor,
    right: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
) -> Axes:
    """Unite the features on both sides with the weight's."""
    outgoing, left_features, right_features = trace[weight]
    trace.unite(trace[left][-1], left_features)
    trace.unite(trace[right][-1], right_features)
    batch = trace.broadcast(out.shape[:-1], trace[left][:-1], trace[right][:-1])
    return [*batch, outgoing if bias is None else trace.unite(outgoing, trace[bias][0])]


@rule("_cdist_forward")
def distances(trace: LabelledTensors, out: Tensor, x: Tensor, y: Tensor, *args: Any) -> Axes:
    """Unite the features whose differences are summed."""
    *batch, rows, features = trace[x]
    *other_batch, columns, same_features = trace[y]
    trace.unite(features, same_features)
    return [*trace.broadcast(out.shape[:-2], batch, other_batch), rows, columns]


@function_rule(torch.functional.einsum)
def einsum(trace: LabelledTensors, out: Tensor, equation: str, *operands: Any) -> Axes:
    """Unite all axes that have the same letter."""
    if len(operands) == 1 and not isinstance(operands[0], Tensor):
        operands = tuple(operands[0])
    inputs, _, output = equation.replace(" ", "").partition("->")
    letters: dict[str, Labels] = {}
    for term, operand in zip(inputs.split(","), operands, strict=True):
        for letter, axis in zip(_letters(term, operand.dim()), trace[operand], strict=True):
            known = letters.get(letter, axis)
            if len(known) == len(axis):
                letters[letter] = trace.unite(known, axis)
            else:
                letters[letter] = max(known, axis, key=len)
                trace.pin(min(known, axis, key=len), "a single channel that is broadcast to many")
    if "->" not in equation:
        single = (c for c in sorted(set(inputs) - set(",.")) if inputs.count(c) == 1)
        output = ("..." if "..." in inputs else "") + "".join(single)
    return [letters[letter] for letter in _letters(output, out.dim())]


def _letters(term: str, dims: int) -> list[str]:
    """Name the axes of one term of an einsum; those of an ellipsis count from the right."""
    before, dots, after = term.partition("...")
    hidden = dims - len(before) - len(after) if dots else 0
    return [*before, *(f"...{left}" for left in range(hidden, 0, -1)), *after]


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
    """Unite channels with those of scale and shift; without these the shape is only a number."""
    vectors = tensors_in([args, kwargs])
    if not vectors and trace.call.function not in NORMALISED_SHAPES:
        for axis in trace[x][-len(shape) :]:
            trace.pin(axis, "normalised over a shape that no tensor gives")
    return trace.broadcast(x.shape, trace[x], *(trace[vector] for vector in vectors))


NORMALISED_SHAPES = frozenset({F.layer_norm, torch.layer_norm, F.rms_norm, torch.rms_norm})
"""The functions that are told the shape over which they normalise."""


def unite_with_normalised_shape(trace: LabelledTensors) -> None:
    """Unite the last axes with the sizes that a call of such a function names."""
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
    elif groups < len(channels) and _stays(asked):
        _tie_groups(trace, channels, groups)
    else:
        trace.pin(channels, "as many groups as channels, a number that is written in the code")
    return [batch, trace.unite(channels, *vectors), *rest]


NORMS = frozenset(name for name in RULES if name.endswith("_norm") or "_norm_" in name)
"""The operations after which gates are placed."""


# Reductions and pooling


@rule("sum", "mean", "prod", "amax", "amin", "max", "min", "logsumexp", "var", "std", "any", "all")
@rule("var_mean", "std_mean", "median", "nanmedian", "mode", "norm", "linalg_vector_norm")
@rule("aminmax", "nansum", "nanmean", "count_nonzero", "_is_all_true", "_is_any_true")
def reduction(trace: LabelledTensors, out: Any, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    """Drop the axes that are reduced, or leave one place of each.

    Where the positions of what is taken are returned too, they may only be used if channels stay.
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
    return _without(trace[x], dims, keep=results[0].dim() == x.dim())


@rule("argmax", "argmin")
def position(trace: LabelledTensors, out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    """Pin the channels whose positions are asked for."""
    for dim in _reduced_dims(x, args, kwargs):
        trace.pin(trace[x][dim], "the position of a channel is asked for")
    return reduction(trace, out, x, *args, **kwargs)


def _reduced_dims(x: Tensor, args: Sequence[Any], kwargs: dict[str, Any]) -> set[int]:
    """Return the axes over which an operation reduces: all where it names none."""
    candidates = [*args, kwargs.get("dim")]
    named: Any = next((a for a in candidates if isinstance(a, (list, tuple)) and a), None)
    if named is None:
        integers = [a for a in candidates if isinstance(a, int) and not isinstance(a, bool)]
        named = integers[:1] or range(x.dim())
    return {dim % x.dim() for dim in named}


def _without(axes: Axes, dims: Iterable[int], *, keep: bool) -> Axes:
    gone = set(dims)
    if keep:
        return [free(1) if dim in gone else axis for dim, axis in enumerate(axes)]
    return [axis for dim, axis in enumerate(axes) if dim not in gone]


def _spatial(dims: int) -> Rule:
    """Return the rule of an operation that changes the last axes only."""

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


# The same elements in another order


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


@rule("view", "_unsafe_view", "_reshape_alias", "reshape", "unflatten")
def view(trace: LabelledTensors, out: Tensor, x: Tensor, *args: Any) -> Axes:
    """See `pruners.channels.reshaping.reshape`."""
    if out.numel() != x.numel():  # read as numbers of another width
        trace.pin(trace[x][-1], "read as numbers of another width")
        return [*trace[x][:-1], fixed(out.shape[-1])]
    return reshape(trace, trace[x], out.shape)


@rule("as_strided")
def as_strided(
    trace: LabelledTensors, out: Tensor, x: Tensor, size: Sequence[int], *args: Any
) -> Axes:
    """Follow a change of the layout in memory only; pin everything where the shape changes."""
    if list(size) == list(x.shape):
        return trace[x]
    for axis in trace[x]:
        trace.pin(axis, "viewed with strides that are written in the code")
    return [*map(fixed, out.shape)]


@rule("unsqueeze")
def unsqueeze(trace: LabelledTensors, out: Tensor, x: Tensor, dim: int) -> Axes:
    """Insert an axis of one place."""
    axes = list(trace[x])
    axes.insert(dim % out.dim(), free(1))
    return axes


@rule("squeeze")
def squeeze(
    trace: LabelledTensors, out: Tensor, x: Tensor, dims: int | Sequence[int] | None = None
) -> Axes:
    """Drop axes of one place."""
    axes = trace[x]
    named = range(len(axes)) if dims is None else [dims] if isinstance(dims, int) else dims
    gone = {dim % len(axes) for dim in named if len(axes[dim]) == 1}
    for dim in gone:
        trace.pin(axes[dim], "a single channel whose axis is dropped")
    return _without(axes, gone, keep=False)


@rule("expand")
def expand(trace: LabelledTensors, out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    """Repeat axes of one place."""
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
    """Return the labels of an axis that is repeated as often as the code has asked."""
    number = operator.index(times)
    repeated = np.tile(axis, number)
    if not adapts(times):
        return axis if number == 1 else either(repeated, constant(len(repeated)))
    if len(axis) == 1 and not is_tracked(axis):
        return _as_asked(trace, number, times)
    times.pin("a number of repetitions that is computed from its size")
    return either(repeated, fixed(len(repeated)))


def _pin_places(trace: LabelledTensors, *axes: Labels) -> None:
    for axis in axes:
        trace.pin(axis, "pooled or resampled along this axis")


@rule("pixel_shuffle")
def pixel_shuffle(trace: LabelledTensors, out: Tensor, x: Tensor, factor: int) -> Axes:
    """Tie the ``factor ** 2`` channels that become one."""
    *batch, channels, height, width = trace[x]
    _pin_places(trace, height, width)
    shuffled = trace.tie(channels.reshape(-1, factor**2).T)
    return [*batch, shuffled, *map(constant, out.shape[-2:])]


@rule("pixel_unshuffle")
def pixel_unshuffle(trace: LabelledTensors, out: Tensor, x: Tensor, factor: int) -> Axes:
    """Let each channel become ``factor ** 2`` that stay together."""
    *batch, channels, height, width = trace[x]
    _pin_places(trace, height, width)
    return [*batch, np.repeat(channels, factor**2), *map(constant, out.shape[-2:])]


@rule("im2col")
def im2col(trace: LabelledTensors, out: Tensor, x: Tensor, kernel: Any, *args: Any) -> Axes:
    """Let each channel become the places under a kernel, which stay together."""
    *batch, channels, height, width = trace[x]
    _pin_places(trace, height, width)
    return [*batch, np.repeat(channels, math.prod(kernel)), constant(out.shape[-1])]


@rule("col2im")
def col2im(
    trace: LabelledTensors, out: Tensor, x: Tensor, size: Any, kernel: Any, *args: Any
) -> Axes:
    """Tie the places under a kernel, which become one channel."""
    *batch, columns, places = trace[x]
    _pin_places(trace, places)
    channels = trace.tie(columns.reshape(-1, math.prod(kernel)).T)
    return [*batch, channels, *map(constant, out.shape[-2:])]


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
    """Tie channels at the same offset of each group, which stand side by side afterwards."""
    batch, channels, *rest = trace[x]
    return [batch, np.repeat(_tie_groups(trace, channels, groups), groups), *rest]


# Parts, and the whole


@rule("cat", "concat", "concatenate")
def cat(trace: LabelledTensors, out: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> Axes:
    """Put labels side by side along one axis and unite the others."""
    parts = [trace[tensor] for tensor in tensors if tensor.dim() == out.dim()]
    along = [axes[dim] for axes in parts]
    if any(map(is_tracked, along)):
        # Beside channels, a part that belongs to none keeps its size.
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
    """Let each part have its stretch of the labels."""
    axes, axis = trace[x], trace[x][dim]
    bounds = np.cumsum([part.shape[dim] for part in out])[:-1]
    parts: list[Labels] = np.split(axis, bounds)
    if is_tracked(axis):
        _keep_cuts(trace, axis, parts)
    dim %= x.dim()
    return tuple([*axes[:dim], part, *axes[dim + 1 :]] for part in parts)


def _keep_cuts(trace: LabelledTensors, axis: Labels, parts: list[Labels]) -> None:
    """See to it that a split will still cut where it does now."""
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


@rule("_prelu_kernel", "prelu")
def prelu(trace: LabelledTensors, out: Tensor, x: Tensor, weight: Tensor) -> Axes:
    """Unite the channels with their slopes, unless one slope serves all."""
    slopes = trace[weight][1 if weight.dim() > 1 else 0]
    axes = list(trace[x])
    if len(slopes) > 1:
        axes[1] = trace.unite(axes[1], slopes)
    return axes


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
    """Let the part have its stretch of the labels."""
    axes = list(trace[x])
    axis, axes[dim] = axes[dim], axes[dim][slice(start, end, step)]
    first, last = start or 0, len(axis) if end is None else end
    if is_tracked(axis) and trace.call.function in (torch.narrow, torch.Tensor.narrow):
        _keep_narrow(trace, out, axis, first, last)
    elif is_tracked(axis) and len(axes[dim]) < len(axis):
        if step > 1 and len(axis) % step == 0 and 0 <= first < step and last >= len(axis):
            # One of each run of neighbours: a run goes as a whole.
            axes[dim] = trace.tie(axis.reshape(-1, step).T)
        else:
            _keep_bounds(trace, out, axis, dim, (first, last, step))
    return axes


def _keep_bounds(
    trace: LabelledTensors, out: Tensor, axis: Labels, dim: int, bounds_and_step: Sequence[int]
) -> None:
    """See to it that a slice will still have the bounds that it has now, if it is used at all."""
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
    """See to it that a stretch will still start where it does, and be as long as it is to be."""
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
    """Return the numbers of the code that the bounds of a slice may come from."""
    asked: Sequence[Any]
    if call.function in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
        own = _slice_of(call.argument(0), call.argument(1), dim)
        asked = [own.start, own.stop] if own else []
    else:
        asked = [width for width in call.widths() if not isinstance(width, AttributeSize)]
    return [*filter(adapts, asked)]


def _slice_of(x: Tensor, index: Any, dim: int) -> slice | None:
    """Return what the code has written for an axis, counted in the result."""
    entries = index if isinstance(index, tuple) else (index,)
    named = [entry for entry in entries if entry is not None and entry is not Ellipsis]
    axis = 0
    for entry in entries:
        if isinstance(entry, slice) and axis == dim:
            return entry
        if entry is Ellipsis:
            axis += x.dim() - len(named)
        elif not isinstance(entry, int):  # which drops its axis
            axis += 1
    return None


@rule("select")
def select(trace: LabelledTensors, out: Tensor, x: Tensor, dim: int, index: int) -> Axes:
    """Drop an axis, of which only one place is read."""
    trace.pin_on_use(out, trace[x][dim], "a single channel is taken by its number")
    return _without(trace[x], [dim % x.dim()], keep=False)


@rule("unbind")
def unbind(
    trace: LabelledTensors, out: Sequence[Tensor], x: Tensor, dim: int = 0
) -> tuple[Axes, ...]:
    """Drop an axis, of which every place is read by its number."""
    return tuple(select(trace, part, x, dim, number) for number, part in enumerate(out))


@rule("constant_pad_nd")
def pad(
    trace: LabelledTensors, out: Tensor, x: Tensor, margins: Sequence[int], value: float = 0
) -> Axes:
    """Add constants, which keep their number, or take away at the ends."""
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


# Positions as data


@rule("embedding")
def embedding(
    trace: LabelledTensors, out: Tensor, weight: Tensor, index: Tensor, *args: Any
) -> Axes:
    """Keep the vocabulary; the features are channels."""
    vocabulary, features = trace[weight]
    trace.pin(vocabulary, "the vocabulary of an embedding")
    return [*trace[index], features]


@rule("_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(
    trace: LabelledTensors, out: Any, weight: Tensor, index: Tensor, *args: Any
) -> Axes:
    """Keep the vocabulary; the features are channels."""
    vocabulary, features = trace[weight]
    trace.pin(vocabulary, "the vocabulary of an embedding")
    return [constant(out[0].shape[0]), features]


@rule("index", "_unsafe_index")
def index(trace: LabelledTensors, out: Tensor, x: Tensor, indices: Sequence[Tensor | None]) -> Axes:
    """Advanced indexing: pin the axes that are indexed."""
    axes = trace[x]
    taken = _indexed(trace, indices)
    for dim in taken:
        trace.pin(axes[dim], "indexed by a tensor")
    kept = [axis for dim, axis in enumerate(axes) if dim not in taken]
    where = taken[0] if _are_together(indices) else 0
    new = out.dim() - len(kept)
    return [*kept[:where], *map(fixed, out.shape[where : where + new]), *kept[where:]]


def _indexed(trace: LabelledTensors, indices: Sequence[Tensor | None]) -> list[int]:
    """Return which axes are indexed, and pin the axes of the indices themselves.

    A mask takes the place of as many axes as it has.
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
    """Tell whether the indexed axes follow one another: the result has theirs in that place."""
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


# Attention


@function_rule(F.scaled_dot_product_attention)
@rule("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_efficient_attention")
@rule("_scaled_dot_product_flash_attention", "_scaled_dot_product_cudnn_attention")
@rule("_scaled_dot_product_attention_math", "_scaled_dot_product_fused_attention_overrideable")
def scaled_dot_product_attention(
    trace: LabelledTensors,
    out: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Any = None,
    *args: Any,
    **kwargs: Any,
) -> Axes:
    """Unite the features that are multiplied; each head's are the last axis."""
    *batch, targets, features = trace[query]
    *key_batch, sources, key_features = trace[key]
    *value_batch, value_sources, value_features = trace[value]
    trace.unite(features, key_features)
    trace.unite(sources, value_sources)
    operands = [batch, *(_shared_heads(trace, batch, own) for own in (key_batch, value_batch))]
    if isinstance(attn_mask, Tensor):
        operands.append(trace[attn_mask][:-2])
        places = [targets, sources]
        trace.broadcast([*map(len, places)], places, trace[attn_mask][-2:])
    shape = tensors_in(out)[0].shape
    return [*trace.broadcast(shape[:-2], *operands), targets, value_features]


def _shared_heads(trace: LabelledTensors, query: Axes, own: Axes) -> Axes:
    """Repeat the heads of keys or values as grouped-query attention does, for its queries.

    Queries of one group follow the head that they share.
    """
    if not query or not own or len(query[-1]) == len(own[-1]) or len(own[-1]) == 1:
        return own
    return [*own[:-1], np.repeat(own[-1], len(query[-1]) // len(own[-1]))]


@function_rule(F.multi_head_attention_forward)
def multi_head_attention(
    trace: LabelledTensors,
    out: tuple[Tensor, Tensor | None],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    *args: Any,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    **kwargs: Any,
) -> Axes:
    """Tie the features at the same offset of each head.

    The function takes the width of queries, keys and values within the heads to be that of the
    query outside: these are tied too.
    """
    width = trace[query][-1]
    trace.tie(width.reshape(num_heads, -1))
    if in_proj_weight is not None:
        projections, inputs = trace[in_proj_weight]
        trace.unite(width, *projections.reshape(3, -1))
        trace.unite(width, inputs, trace[key][-1], trace[value][-1])
    separate = zip((query, key, value), (q_proj_weight, k_proj_weight, v_proj_weight), strict=True)
    for tensor, weight in separate:
        if weight is not None:
            trace.unite(width, trace[weight][0])
            trace.unite(trace[tensor][-1], trace[weight][1])
    if in_proj_bias is not None:
        trace.unite(width, *trace[in_proj_bias][0].reshape(3, -1))
    for extra in (bias_k, bias_v):
        if extra is not None:
            trace.unite(width, trace[extra][-1])
    outgoing, heads = trace[out_proj_weight]
    trace.unite(width, heads)
    if out_proj_bias is not None:
        outgoing = trace.unite(outgoing, trace[out_proj_bias][0])
    return [*trace[query][:-1], outgoing]
