"""What channels are to a network: attention heads, neurons, residual width, and so on.

Rules mark the labels of axes by what an operation does with them. No name of a module, a parameter
or an architecture takes part. Coupled channels can have several marks: the neurons of a layer that
writes to the residual stream are residual width. `KINDS` says which mark decides.
"""

from __future__ import annotations

from collections.abc import Iterable

HEADS = "attention heads"
"""Matrices of activations are multiplied for each: queries with keys, weights with values."""

RECURRENT_UNITS = "recurrent units"
"""The cells and outputs of recurrent layers."""

RESIDUAL = "residual width"
"""Activations are added to others that fewer layers have computed."""

HEAD_WIDTH = "head width"
"""Rows, columns or summed axes of products of two activations: the features within heads."""

PATCHES = "patch embedding"
"""A convolution with patches that do not overlap computes them."""

CONVOLUTION = "convolution channels"
"""A convolution computes them from several channels."""

NEURONS = "feed-forward neurons"
"""A linear layer computes them."""

EMBEDDING = "embedding width"
"""They are looked up in a table."""

OTHER = "channels"
"""None of these operations meets them, or they were declared by hand."""

OUTPUT = "it reaches the model's output"
"""Why the channels of the last layers stay."""

KINDS = (
    HEADS,
    RECURRENT_UNITS,
    RESIDUAL,
    HEAD_WIDTH,
    PATCHES,
    CONVOLUTION,
    NEURONS,
    EMBEDDING,
    OTHER,
)
"""All kinds. The first that any channel of a group is marked with is the kind of the group."""

CELLS = frozenset({"lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"})
"""The functions of torch that carry out one step of a recurrent layer."""

LAYERS = frozenset(
    {"mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "linear", "convolution", "_convolution"}
)
"""The operations that count as a layer when activations are compared by their depth."""

FIRST = LAYERS | {"embedding"}
"""The operations that can read the inputs of a model; what they compute is activations."""


def kind_of(marks: Iterable[Iterable[str]]) -> str:
    """Return the kind of a group.

    Args:
        marks: the marks of each of its channels.
    """
    found = {mark for own in marks for mark in own}
    return next((kind for kind in KINDS if kind in found), OTHER)
