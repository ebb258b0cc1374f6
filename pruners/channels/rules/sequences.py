"""Rules of recurrent layers, packed sequences and attention."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pruners.channels.kinds import HEAD_WIDTH, HEADS, RECURRENT_UNITS
from pruners.channels.labels import (
    Axes,
    LabelledTensors,
    Labels,
    constant,
)
from pruners.channels.rules.registry import function_rule, rule, tensors_in

# Recurrent layers


RECURRENT: dict[Callable[..., Any], int] = {
    torch.lstm: 4,
    torch.gru: 3,
    torch.rnn_tanh: 1,
    torch.rnn_relu: 1,
}
"""The number of gates into which the rows of a layer's weights are divided."""


def recurrent(
    gates: int, trace: LabelledTensors, out: Sequence[Tensor], x: Tensor, *args: Any
) -> tuple[Axes, ...]:
    """Unite the features of each layer with its weights, and the states of all layers.

    A packed sequence is given as the stacked steps of all sequences and the batch size of each
    step.
    """
    packed = not isinstance(args[2], bool)
    hidden, weights, biased, layers, _, _, both_directions = args[1 if packed else 0 :][:7]
    states = [hidden] if isinstance(hidden, Tensor) else list(hidden)
    *places, features = trace[x]
    directions = 2 if both_directions else 1
    each = len(weights) // (layers * directions)
    widths: list[list[Labels]] = [[] for _ in states]
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            first = (layer * directions + direction) * each
            own = _layer(trace, features, weights[first : first + each], gates, biased=biased)
            outputs.append(own[0])
            trace.mark(RECURRENT_UNITS, *own)
            for width, labels in zip(widths, own, strict=False):
                width.append(labels)
        features = np.concatenate(outputs)
    result: list[Axes] = [[*places, features]]
    batch = out[1].shape[1]
    for state, width in zip(states, widths, strict=True):
        labels = trace.unite(trace[state][-1], *width)
        # The final state has as many layers as the initial one.
        result.append([constant(layers * directions), constant(batch), labels])
    return tuple(result)


def carried_out(function: Callable[..., Any], args: Sequence[Any], kwargs: Any) -> Any:
    """Call a function; on "meta" return empty results of recurrent ones, whose steps are slow."""
    if function not in RECURRENT:
        return function(*args, **kwargs)
    x, packed = args[0], not isinstance(args[3], bool)
    if not x.is_meta:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="LSTM with projections")
            return function(*args)
    hidden, _, _, _, _, _, both_directions = args[2 if packed else 1 :][:7]
    states = [hidden] if isinstance(hidden, Tensor) else list(hidden)
    features = states[0].shape[-1] * (2 if both_directions else 1)
    output = x.new_empty(*x.shape[:-1], features)
    return (output, *(torch.empty_like(state) for state in states))


def _layer(
    trace: LabelledTensors, features: Labels, weights: Sequence[Tensor], gates: int, *, biased: bool
) -> tuple[Labels, Labels]:
    """Return the labels of a layer's output and of its cells; only a projection separates them."""
    input_rows, incoming = trace[weights[0]]
    hidden_rows, handed_back = trace[weights[1]]
    trace.unite(features, incoming)
    rows = [input_rows, hidden_rows, *(trace[bias][0] for bias in weights[2 : 4 * biased])]
    cells = trace.tie(np.concatenate([axis.reshape(gates, -1) for axis in rows]))
    outgoing = cells
    if len(weights) > (4 if biased else 2):
        outgoing, projected = trace[weights[-1]]
        trace.unite(projected, cells)
    return trace.unite(outgoing, handed_back), cells


for _function, _gates in RECURRENT.items():
    function_rule(_function)(partial(recurrent, _gates))


@rule("_pack_padded_sequence")
def pack(trace: LabelledTensors, out: Any, x: Tensor, lengths: Tensor, batch_first: bool) -> Axes:
    """Keep the features; the steps of all sequences are stacked."""
    for axis in trace[x][:2]:
        trace.pin(axis, "packed by the lengths of sequences")
    return [constant(out[0].shape[0]), *trace[x][2:]]


@rule("_pad_packed_sequence")
def unpack(trace: LabelledTensors, out: Any, data: Tensor, *args: Any) -> Axes:
    """Keep the features; the sequences are separated again."""
    steps, *features = trace[data]
    trace.pin(steps, "packed by the lengths of sequences")
    return [*map(constant, out[0].shape[:2]), *features]


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
    """Unite the features that are multiplied; the features of a head are the last axis."""
    *batch, targets, features = trace[query]
    *key_batch, sources, key_features = trace[key]
    *value_batch, value_sources, value_features = trace[value]
    trace.unite(features, key_features)
    trace.unite(sources, value_sources)
    trace.mark(HEADS, *batch, *key_batch, *value_batch)
    trace.mark(HEAD_WIDTH, features, value_features, targets, sources)
    operands = [batch, *(_shared_heads(trace, batch, own) for own in (key_batch, value_batch))]
    if isinstance(attn_mask, Tensor):
        operands.append(trace[attn_mask][:-2])
        places = [targets, sources]
        trace.broadcast([*map(len, places)], places, trace[attn_mask][-2:])
    shape = tensors_in(out)[0].shape
    return [*trace.broadcast(shape[:-2], *operands), targets, value_features]


def _shared_heads(trace: LabelledTensors, query: Axes, own: Axes) -> Axes:
    """Repeat the heads of keys or values as grouped-query attention does.

    The queries of a group follow the head that they share.
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

    The function requires that queries, keys and values are together as wide within the heads as
    the query is outside, so these are tied too.
    """
    width = trace[query][-1]
    trace.tie(width.reshape(num_heads, -1))
    trace.mark(HEAD_WIDTH, width)
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
