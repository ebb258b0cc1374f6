"""The rules of recurrent layers, which are taken as one operation, and of packed sequences."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pruners.channels.labels import Axes, LabelledTensors, Labels, constant
from pruners.channels.rules import function_rule, rule

RECURRENT: dict[Callable[..., Any], int] = {
    torch.lstm: 4,
    torch.gru: 3,
    torch.rnn_tanh: 1,
    torch.rnn_relu: 1,
}
"""Into how many gates the rows of a layer's weights are divided."""


def recurrent(
    gates: int, trace: LabelledTensors, out: Sequence[Tensor], x: Tensor, *args: Any
) -> tuple[Axes, ...]:
    """Unite each layer's features with its weights, and the states of all layers.

    A packed sequence is given as its steps, of all sequences below each other, and their numbers.
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
            for width, labels in zip(widths, own, strict=False):
                width.append(labels)
        features = np.concatenate(outputs)
    result: list[Axes] = [[*places, features]]
    batch = out[1].shape[1]
    for state, width in zip(states, widths, strict=True):
        labels = trace.unite(trace[state][-1], *width)
        # In the last state are as many layers as in the first.
        result.append([constant(layers * directions), constant(batch), labels])
    return tuple(result)


def carried_out(function: Callable[..., Any], args: Sequence[Any], kwargs: Any) -> Any:
    """Return what a function returns; recurrent ones on "meta" without their steps, which last."""
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
    """Return the labels of what one layer hands on, and of its cells: the same unless projected."""
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
    """Put the steps of all sequences below each other; the features stay."""
    for axis in trace[x][:2]:
        trace.pin(axis, "packed by the lengths of sequences")
    return [constant(out[0].shape[0]), *trace[x][2:]]


@rule("_pad_packed_sequence")
def unpack(trace: LabelledTensors, out: Any, data: Tensor, *args: Any) -> Axes:
    """Put sequences beside each other again; the features stay."""
    steps, *features = trace[data]
    trace.pin(steps, "packed by the lengths of sequences")
    return [*map(constant, out[0].shape[:2]), *features]
