"""Rules of operations that fewer networks have; see `pruners.channels.rules`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from pruners.channels.labels import Axes, LabelledTensors, constant, fixed, is_tracked
from pruners.channels.rules import (
    elementwise,
    matrix_product_plus,
    reduction,
    rule,
    tensors_in,
)

# Complex numbers and frequencies

rule("complex", "polar")(elementwise)


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


@rule("view_as_complex")
def view_as_complex(trace: LabelledTensors, out: Tensor, x: Tensor) -> Axes:
    """Drop the last axis, of a real and an imaginary part."""
    *axes, parts = trace[x]
    trace.pin(parts, "real and imaginary parts")
    return axes


@rule("view_as_real")
def view_as_real(trace: LabelledTensors, out: Tensor, x: Tensor) -> Axes:
    """Add an axis of a real and an imaginary part."""
    return [*trace[x], constant(2)]


# Diagonals and matrices


@rule("rot90")
def rot90(
    trace: LabelledTensors, out: Tensor, x: Tensor, turns: int = 1, dims: Sequence[int] = (0, 1)
) -> Axes:
    """Pin both axes that are turned."""
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
    """Let rows and columns be the channels that were the last axis."""
    *axes, along = trace[x]
    if offset:
        trace.pin(along, "written beside a diagonal")
    new = fixed(out.shape[first]) if offset else along
    for dim in sorted({first % out.dim(), second % out.dim()}):
        axes.insert(dim, new)
    return axes


@rule("linalg_inv_ex", "linalg_matrix_exp", "linalg_cholesky_ex", "linalg_qr", "_linalg_svd")
@rule("_linalg_det", "_linalg_slogdet", "_linalg_eigh", "linalg_eig", "linalg_lu_factor_ex")
@rule("_linalg_solve_ex", "linalg_lstsq", "linalg_solve_triangular", "cholesky_solve")
@rule("linalg_pinv", "linalg_ldl_factor_ex", "triangular_solve", "cholesky_inverse")
def matrix_function(
    trace: LabelledTensors, out: Any, *args: Any, **kwargs: Any
) -> tuple[Axes, ...]:
    """Pin rows and columns, and unite what matrices are stacked along."""
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


rule("_sparse_addmm")(matrix_product_plus)


@rule("_grouped_mm")
def grouped_matrix_product(
    trace: LabelledTensors, out: Tensor, left: Tensor, right: Tensor, *args: Any, **kwargs: Any
) -> Axes:
    """Multiply rows with the matrix of their expert, and keep the experts.

    The kernels take matrices only whose rows are multiples of 16 bytes long.
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


# Values


rule("rrelu_with_noise", "rrelu_with_noise_functional")(elementwise)


@rule("fake_quantize_per_tensor_affine_cachemask")
@rule("_fake_quantize_per_tensor_affine_cachemask_tensor_qparams")
@rule("_fake_quantize_learnable_per_tensor_affine")
def fake_quantize(trace: LabelledTensors, out: Any, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    """Let every place be rounded alike."""
    return trace[x]


@rule("fake_quantize_per_channel_affine_cachemask", "_fake_quantize_learnable_per_channel_affine")
def fake_quantize_channels(
    trace: LabelledTensors,
    out: Any,
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    axis: int,
    *args: Any,
) -> Axes:
    """Unite the channels with their scales."""
    axes = list(trace[x])
    axes[axis] = trace.unite(axes[axis], trace[scale][0], trace[zero_point][0])
    return axes


@rule("bucketize")
def bucketize(trace: LabelledTensors, out: Tensor, x: Any, bounds: Tensor, **kwargs: Any) -> Axes:
    """Keep the bounds."""
    trace.pin(trace[bounds][0], "bounds that values are sorted into")
    return trace[x] if isinstance(x, Tensor) else []


@rule("searchsorted")
def searchsorted(
    trace: LabelledTensors, out: Tensor, bounds: Tensor, x: Any, **kwargs: Any
) -> Axes:
    """Keep the bounds."""
    for axis in trace[bounds]:
        trace.pin(axis, "bounds that values are sorted into")
    return trace[x] if isinstance(x, Tensor) else []


@rule("kthvalue")
def kthvalue(
    trace: LabelledTensors, out: Any, x: Tensor, k: int, dim: int = -1, keepdim: bool = False
) -> Axes:
    """Pin the axis whose k-th smallest place is taken."""
    trace.pin(trace[x][dim], "ranked or taken by its position")
    return reduction(trace, out, x, dim, keepdim)


@rule("nonzero", "unique", "_unique2", "unique_dim", "unique_consecutive", "masked_select")
@rule("masked_scatter", "multinomial", "bincount", "histc", "take", "put")
def by_value(trace: LabelledTensors, out: Any, *args: Any, **kwargs: Any) -> tuple[Axes, ...]:
    """Pin whatever takes part: what is taken depends on all values."""
    for tensor in tensors_in([args, kwargs]):
        for axis in trace[tensor]:
            trace.pin(axis, "taken or written in the order of the values")
    return tuple([*map(fixed, result.shape)] for result in tensors_in(out))


# Losses inside a network


@rule("nll_loss_forward", "nll_loss2d_forward", "nll_loss", "nll_loss2d")
def negative_log_likelihood(
    trace: LabelledTensors,
    out: Any,
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    *args: Any,
) -> Axes:
    """Keep the classes, which targets name by their numbers."""
    axes = list(trace[x])
    classes = axes.pop(1 if x.dim() > 1 else 0)
    trace.pin(classes, "classes that targets name by their numbers")
    if weight is not None:
        trace.pin(trace[weight][0], "classes that targets name by their numbers")
    shape = tensors_in(out)[0].shape
    places = trace.broadcast(target.shape, axes, trace[target])
    return places if len(shape) == len(places) else [*map(fixed, shape)]


@rule("mse_loss", "smooth_l1_loss", "huber_loss", "soft_margin_loss", "binary_cross_entropy")
@rule("l1_loss", "kl_div", "binary_cross_entropy_with_logits", "poisson_nll_loss")
def elementwise_loss(trace: LabelledTensors, out: Tensor, *args: Any, **kwargs: Any) -> Axes:
    """Unite the axes of predictions and targets."""
    operands = [trace[tensor] for tensor in tensors_in([args, kwargs])]
    sizes = [len(axis) for axis in max(operands, key=lambda axes: len(axes))]
    axes = trace.broadcast(sizes, *operands)
    return axes if out.dim() == len(axes) else []


# Rows that are added or written


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


# Operations of torchvision


@rule("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool")
def regions(
    trace: LabelledTensors, out: Any, x: Tensor, boxes: Tensor, *args: Any
) -> tuple[Axes, ...]:
    """Take boxes out of a feature map, channel by channel or by their positions."""
    _, channels, *places = trace[x]
    result = tensors_in(out)[0]
    if result.shape[1] != len(channels):
        trace.pin(channels, "a single channel is taken by its number")
        channels = fixed(result.shape[1])
    for axis in (*places, *trace[boxes][1:]):
        trace.pin(axis, "pooled or resampled along this axis")
    axes = [trace[boxes][0], channels, *map(constant, result.shape[2:])]
    return tuple(axes for _ in tensors_in(out))


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
    """Unite channels with those of the kernel; torchvision counts the groups itself.

    Channels of the offsets belong to places under the kernel: they stay.
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
