"""Rules of sums over products: matrix products, linear layers, convolutions."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pruners.channels.kept_sizes import stays_as_parts, unite_with_size
from pruners.channels.kinds import CONVOLUTION, HEAD_WIDTH, HEADS, NEURONS, PATCHES
from pruners.channels.labels import (
    Axes,
    LabelledTensors,
    Labels,
    constant,
    fixed,
    is_tracked,
)
from pruners.channels.rules.pointwise import elementwise
from pruners.channels.rules.registry import function_rule, rule, tensors_in
from pruners.channels.sizes import Width, adapts


@rule("mm", "bmm")
def matrix_product(trace: LabelledTensors, out: Tensor, left: Tensor, right: Tensor) -> Axes:
    """Unite the axes that are summed over."""
    *batch, rows, inner = trace[left]
    *other_batch, same_inner, columns = trace[right]
    trace.unite(inner, same_inner)
    if trace.depth(left) is None or trace.depth(right) is None:
        trace.mark(NEURONS, columns if trace.depth(right) is None else rows)
    else:
        trace.mark(HEADS, *batch, *other_batch)
        trace.mark(HEAD_WIDTH, rows, inner, columns)
    return [*map(trace.unite, batch, other_batch), rows, columns]


@rule("addmm", "baddbmm")
def matrix_product_plus(
    trace: LabelledTensors, out: Tensor, bias: Tensor, left: Tensor, right: Tensor, **kwargs: Any
) -> Axes:
    """Add a bias to a matrix product."""
    return trace.broadcast(out.shape, trace[bias], matrix_product(trace, out, left, right))


rule("_sparse_addmm")(matrix_product_plus)


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
    trace.mark(NEURONS, outgoing)
    return [*batch, outgoing if bias is None else trace.unite(outgoing, trace[bias][0])]


@function_rule(F.bilinear)
def bilinear(
    trace: LabelledTensors,
    out: Tensor,
    left: Tensor,
    right: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
) -> Axes:
    """Unite the features of both inputs with those of the weight."""
    outgoing, left_features, right_features = trace[weight]
    trace.unite(trace[left][-1], left_features)
    trace.unite(trace[right][-1], right_features)
    batch = trace.broadcast(out.shape[:-1], trace[left][:-1], trace[right][:-1])
    return [*batch, outgoing if bias is None else trace.unite(outgoing, trace[bias][0])]


@rule("_cdist_forward")
def distances(trace: LabelledTensors, out: Tensor, x: Tensor, y: Tensor, *args: Any) -> Axes:
    """Unite the features, over whose differences the norm is taken."""
    *batch, rows, features = trace[x]
    *other_batch, columns, same_features = trace[y]
    trace.unite(features, same_features)
    return [*trace.broadcast(out.shape[:-2], batch, other_batch), rows, columns]


@function_rule(torch.functional.einsum)
def einsum(trace: LabelledTensors, out: Tensor, equation: str, *operands: Any) -> Axes:
    """Unite all axes with the same letter."""
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
    _mark_terms(trace, inputs.split(","), output, operands, letters)
    if "->" not in equation:
        single = (c for c in sorted(set(inputs) - set(",.")) if inputs.count(c) == 1)
        output = ("..." if "..." in inputs else "") + "".join(single)
    return [letters[letter] for letter in _letters(output, out.dim())]


def _mark_terms(
    trace: LabelledTensors,
    terms: Sequence[str],
    output: str,
    operands: Sequence[Tensor],
    letters: Mapping[str, Labels],
) -> None:
    """Note what the axes of a product of two activations are."""
    if len(terms) == 2 and all(trace.depth(operand) is not None for operand in operands):
        for letter in set("".join(terms)) & letters.keys():
            everywhere = all(letter in term for term in (*terms, output))
            trace.mark(HEADS if everywhere else HEAD_WIDTH, letters[letter])


def _letters(term: str, dims: int) -> list[str]:
    """Name the axes of one term of an einsum; axes of an ellipsis count from the right."""
    before, dots, after = term.partition("...")
    hidden = dims - len(before) - len(after) if dots else 0
    return [*before, *(f"...{left}" for left in range(hidden, 0, -1)), *after]


@rule("_grouped_mm")
def grouped_matrix_product(
    trace: LabelledTensors, out: Tensor, left: Tensor, right: Tensor, *args: Any, **kwargs: Any
) -> Axes:
    """Pin the experts; each row is multiplied with the matrix of its expert.

    The kernels require matrices whose rows are a multiple of 16 bytes long.
    """
    *left_stack, rows, inner = trace[left]
    *right_stack, same_inner, columns = trace[right]
    trace.unite(inner, same_inner)
    for axis in (*left_stack, *right_stack):
        trace.pin(axis, "as many matrices as there are groups of rows")
    for bias in tensors_in([args[1:], kwargs]):
        if bias.is_floating_point():
            columns = trace.unite(columns, trace[bias][-1])
    for axis in (inner, columns):
        trace.pin(axis, "a kernel that takes multiples of 16 bytes only")
    return [
        *map(fixed, out.shape[:-2]),
        rows if len(rows) == out.shape[-2] else fixed(out.shape[-2]),
        columns,
    ]


# Convolutions


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
    """Tie channels at the same offset of each group, so that groups stay equally wide."""
    batch, incoming = trace[x][:2]
    first, second, *kernel = trace[weight]
    for axis in kernel:
        trace.pin(axis, "the extent of a kernel")
    for axis in trace[x][2:]:
        trace.pin(axis, "a kernel slides over them")
    asked = _asked_groups(trace, groups)
    if asked is not None and len(incoming) > groups and not stays_as_parts(asked):
        outgoing = _whole_groups(trace, incoming, first, second, asked, transposed)
    elif groups == len(incoming) > 1:
        if asked is None:
            trace.pin(incoming, "as many groups as channels, a number that is written in the code")
        else:
            unite_with_size(trace, incoming, asked)
        outgoing = _depthwise(trace, incoming, first, second, out.shape[1], transposed)
    else:
        sources = trace.tie(incoming.reshape(groups, -1))
        if transposed:
            trace.unite(sources, trace.tie(first.reshape(groups, -1)))
            outgoing = np.tile(second, groups)
        else:
            trace.unite(sources, second)
            trace.tie(first.reshape(groups, -1))
            outgoing = first
    if bias is not None:
        outgoing = trace.unite(outgoing, trace[bias][0])
    if len(incoming) > groups or groups == 1:  # a depthwise convolution mixes no channels
        extent = list(weight.shape[2:])
        is_patches = not transposed and math.prod(extent) > 1 and extent == list(stride)
        trace.mark(PATCHES if is_patches else CONVOLUTION, outgoing)
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
"""The position of the argument ``groups`` of convolutions."""


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
    """Remove whole groups: their number follows from that of the channels, their width stays."""
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


def _depthwise(
    trace: LabelledTensors,
    incoming: Labels,
    first: Labels,
    second: Labels,
    outgoing: int,
    transposed: bool,
) -> Labels:
    """Unite each input channel with all output channels that are made from it alone."""
    trace.pin(second, "the multiplier of a depthwise convolution")
    multiplier = outgoing // len(incoming)
    if transposed:
        return np.repeat(trace.unite(incoming, first), multiplier)
    return trace.unite(np.repeat(incoming, multiplier), first)


@rule("deform_conv2d")
def deform_conv2d(
    trace: LabelledTensors,
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor,
    bias: Tensor,
    *args: Any,
) -> Axes:
    """Unite channels with those of the kernel; torchvision derives the groups from the sizes.

    Channels of the offsets stay, because they belong to positions under the kernel.
    """
    *_, groups, offset_groups, use_mask = args
    batch, incoming, *places = trace[x]
    outgoing, within, *kernel = trace[weight]
    for tensor in (offset, mask) if use_mask else (offset,):
        trace.pin(trace[tensor][1], "offsets of the places under a kernel")
        places += trace[tensor][2:]
    for axis in (*kernel, *places):
        trace.pin(axis, "a kernel slides over them")
    if groups == len(incoming) > 1 and len(outgoing) % groups == 0:
        trace.pin(within, "the multiplier of a depthwise convolution")
        trace.unite(outgoing, incoming.repeat(len(outgoing) // groups))
    else:
        trace.unite(within, trace.tie(incoming.reshape(groups, -1)))
        trace.tie(outgoing.reshape(groups, -1))
    trace.tie(incoming.reshape(offset_groups, -1))
    if is_tracked(trace[bias][0]):
        outgoing = trace.unite(outgoing, trace[bias][0])
    return [batch, outgoing, *map(constant, out.shape[2:])]


# Functions of whole matrices


@rule("linalg_inv_ex", "linalg_matrix_exp", "linalg_cholesky_ex", "linalg_qr", "_linalg_svd")
@rule("_linalg_det", "_linalg_slogdet", "_linalg_eigh", "linalg_eig", "linalg_lu_factor_ex")
@rule("_linalg_solve_ex", "linalg_lstsq", "linalg_solve_triangular", "cholesky_solve")
@rule("linalg_pinv", "linalg_ldl_factor_ex", "triangular_solve", "cholesky_inverse")
def matrix_function(
    trace: LabelledTensors, out: Any, *args: Any, **kwargs: Any
) -> tuple[Axes, ...]:
    """Pin rows and columns, and unite the axes along which matrices are stacked."""
    operands = [trace[tensor] for tensor in tensors_in([args, kwargs])]
    for axes in operands:
        for axis in axes[-2:]:
            trace.pin(axis, "rows and columns of a matrix that is taken as a whole")
    stacked = max((axes[:-2] for axes in operands), key=len)
    batch = trace.broadcast([*map(len, stacked)], *(axes[:-2] for axes in operands))
    return tuple(
        [*batch, *map(fixed, result.shape[len(batch) :])]
        if [*result.shape[: len(batch)]] == [*map(len, batch)]
        else [*map(fixed, result.shape)]
        for result in tensors_in(out)
    )


@rule("linalg_cross")
def cross(trace: LabelledTensors, out: Tensor, x: Tensor, y: Tensor, *, dim: int = -1) -> Axes:
    """Pin the axis of the three coordinates."""
    axes = elementwise(trace, out, x, y)
    trace.pin(axes[dim], "coordinates of a vector product")
    return axes
