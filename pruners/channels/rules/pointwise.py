"""Rules of pointwise operations, losses and new tensors."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pruners.channels.kept_sizes import unite_with_size
from pruners.channels.labels import (
    Axes,
    LabelledTensors,
    Labels,
    constant,
    fixed,
    free,
    is_tracked,
)
from pruners.channels.rules.registry import rule, tensors_in
from pruners.channels.sizes import adapts


@rule("_softmax", "_log_softmax", "_safe_softmax", "native_dropout", "masked_fill", "copy")
@rule("clone", "_to_copy", "contiguous", "zeros_like", "ones_like", "empty_like", "full_like")
@rule(
    "hardswish", "hardsigmoid", "hardtanh", "relu6", "elu", "selu", "celu", "gelu", "silu", "mish"
)
@rule("softplus", "leaky_relu", "threshold", "log_sigmoid_forward", "softshrink", "hardshrink")
@rule("_weight_norm_interface")
@rule("rand_like", "randn_like", "bernoulli", "nan_to_num", "lerp", "where", "dropout")
def elementwise(trace: LabelledTensors, out: Any, *args: Any, **kwargs: Any) -> Axes:
    """Unite the axes of operands as they are broadcast; the rule of every pointwise operation."""
    shape = max((tensor.shape for tensor in tensors_in(out)), key=len)
    return trace.broadcast(shape, *(trace[t] for t in tensors_in([args, kwargs])))


rule("complex", "polar", "rrelu_with_noise", "rrelu_with_noise_functional")(elementwise)


@rule("fill", "zero", "uniform", "exponential", "cauchy", "log_normal", "geometric")
@rule("detach", "alias", "lift_fresh", "lift", "embedding_renorm")
@rule("_conj", "_conj_physical", "resolve_conj", "_neg_view", "resolve_neg")
def unchanged(trace: LabelledTensors, out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    """Keep the labels, which do not depend on values."""
    return trace[x]


@rule("_prelu_kernel", "prelu")
def prelu(trace: LabelledTensors, out: Tensor, x: Tensor, weight: Tensor) -> Axes:
    """Unite the channels with their slopes, unless all share one slope."""
    slopes = trace[weight][1 if weight.dim() > 1 else 0]
    axes = list(trace[x])
    if len(slopes) > 1:
        axes[1] = trace.unite(axes[1], slopes)
    return axes


@rule("fake_quantize_per_tensor_affine_cachemask")
@rule("_fake_quantize_per_tensor_affine_cachemask_tensor_qparams")
@rule("_fake_quantize_learnable_per_tensor_affine")
def fake_quantize(trace: LabelledTensors, out: Any, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    """Keep the labels: all positions are rounded alike."""
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


# Losses inside a network


@rule("mse_loss", "smooth_l1_loss", "huber_loss", "soft_margin_loss", "binary_cross_entropy")
@rule("l1_loss", "kl_div", "binary_cross_entropy_with_logits", "poisson_nll_loss")
def elementwise_loss(trace: LabelledTensors, out: Tensor, *args: Any, **kwargs: Any) -> Axes:
    """Unite the axes of predictions and targets."""
    operands = [trace[tensor] for tensor in tensors_in([args, kwargs])]
    sizes = [len(axis) for axis in max(operands, key=lambda axes: len(axes))]
    axes = trace.broadcast(sizes, *operands)
    return axes if out.dim() == len(axes) else []


@rule("nll_loss_forward", "nll_loss2d_forward", "nll_loss", "nll_loss2d")
def negative_log_likelihood(
    trace: LabelledTensors,
    out: Any,
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    *args: Any,
) -> Axes:
    """Pin the classes, which targets name by their numbers."""
    axes = list(trace[x])
    classes = axes.pop(1 if x.dim() > 1 else 0)
    trace.pin(classes, "classes that targets name by their numbers")
    if weight is not None:
        trace.pin(trace[weight][0], "classes that targets name by their numbers")
    shape = tensors_in(out)[0].shape
    places = trace.broadcast(target.shape, axes, trace[target])
    return places if len(shape) == len(places) else [*map(fixed, shape)]


# New tensors


@rule("zeros", "ones", "empty", "full", "rand", "randn", "randint", "scalar_tensor")
@rule("new_zeros", "new_ones", "new_empty", "new_full")
@rule("empty_strided", "new_empty_strided", "empty_permuted")
def created(trace: LabelledTensors, out: Tensor, *args: Any, **kwargs: Any) -> Axes:
    """Unite sizes that the code read from tensors with their axes; fix sizes that it states."""
    requested = trace.call.shape(out.dim())
    if requested is None:
        return _created_within(trace, out)
    return [as_asked(trace, *sizes) for sizes in zip(out.shape, requested, strict=True)]


def as_asked(trace: LabelledTensors, size: int, asked: int) -> Labels:
    """Return the labels of a new axis whose size the code requested."""
    return unite_with_size(trace, free(size), asked) if adapts(asked) else constant(size)


def _created_within(trace: LabelledTensors, out: Tensor) -> Axes:
    """Label a tensor that a function of torch creates internally: it adapts if its arguments do.

    Tensors of compiled code are fixed, because its numbers cannot be told apart.
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
    """Pin the axes along which the new values depend on the position."""
    for width in trace.call.widths():
        width.pin("values that depend on the position of a channel")
    return _created_within(trace, out)


@rule("normal")
def normal(trace: LabelledTensors, out: Tensor, *args: Any, **kwargs: Any) -> Axes:
    """Follow the tensor of means or deviations, or the requested size if there is none."""
    given = tensors_in([args, kwargs])
    return elementwise(trace, out, *given) if given else created(trace, out)


@rule("eye")
def eye(trace: LabelledTensors, out: Tensor, *args: Any, **kwargs: Any) -> Axes:
    """Unite rows and columns."""
    rows, columns = created(trace, out)
    if len(rows) == len(columns) and is_tracked(rows):
        return [trace.unite(rows, columns)] * 2
    return [*map(fixed, out.shape)]
