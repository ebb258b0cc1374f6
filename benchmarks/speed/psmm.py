"""The speed and memory of the pointer sentinel mixture model, beside its published formulation.

Both run at the paper's size, from the same weights and with the same dropout masks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measurement import Comparison, in_new_process, least_processor_time
from harness.costs.memory import PeakMemory
from tasks.ptb.model import LOGITS_AT_ONCE, PSMM

BATCH, LENGTH, VOCABULARY, HIDDEN = 128, 79, 10_000, 300
REPETITIONS = 3


def published_formulation(model: PSMM, tokens: Tensor) -> Tensor:
    """Return log p(w) the way the model was published: step by step.

    A Python loop over the positions and, for each, another over those before it; the pointer's
    mass reaches the words through a one-hot tensor (length, batch, vocabulary), weighted and
    summed anew at every position. Only what the published code gets wrong is put right:
    dropout is where `PSMM` has it, with the masks that `PSMM` would draw, and the sentinel
    learns.

    Args:
        model: whose weights to use.
        tokens: word numbers (batch, length).

    Returns:
        Log-probabilities (batch, length, vocabulary); minus infinity where p(w) underflows.
    """
    batch, length = tokens.shape
    words, width = model.vocabulary.weight.shape
    scale = torch.ones(2, length, batch, width, dtype=model.sentinel.dtype)
    if model.training:
        for mask in scale:
            mask.masked_fill_(model.dropped(mask.shape), 0).div_(1 - model.dropout)
    embedding_scale, hidden_scale = scale
    one_hot = torch.zeros(length, batch, words, dtype=model.sentinel.dtype)
    one_hot.scatter_(2, tokens.t().unsqueeze(2), 1)
    hidden = cell = torch.zeros(batch, width, dtype=model.sentinel.dtype)
    states: list[Tensor] = []
    probabilities = []
    for t in range(length):
        embedded = model.embedding(tokens[:, t]) * embedding_scale[t]
        hidden, cell = model.lstm(embedded, (hidden, cell))
        states.append(hidden)
        features = hidden * hidden_scale[t]
        query = model.query(features).tanh()
        scores = [(state * query).sum(1) for state in states]
        scores.append(query @ model.sentinel)
        attention = torch.stack(scores).softmax(0)
        pointer = (one_hot[: t + 1] * attention[:-1].unsqueeze(2)).sum(0)
        vocabulary = model.vocabulary(features).softmax(1)
        probabilities.append(pointer + attention[-1].unsqueeze(1) * vocabulary)
    return torch.stack(probabilities, dim=1).log()


def published_loss(model: PSMM, tokens: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of -log p(target) through `published_formulation`."""
    return F.nll_loss(published_formulation(model, tokens).flatten(0, 1), targets.flatten())


def measure() -> list[Comparison]:
    """Compare both formulations at the paper's size, each in a new process on one thread.

    At least 8 times the speed and at most a third of the memory are asked for.
    """
    ours, published = in_new_process(_measure, "ours"), in_new_process(_measure, "published")
    return [
        Comparison("PSMM step / published", ours.seconds, published.seconds, "s", 1 / 8),
        Comparison("PSMM memory / published", ours.megabytes, published.megabytes, "MB", 1 / 3),
        Comparison("PSMM step / arithmetic floor", ours.seconds, ours.floor_seconds, "s", None),
    ]


@dataclass(frozen=True)
class Side:
    """What a training step's forward and backward pass costs."""

    seconds: float
    megabytes: float
    """Peak memory beyond what the process held before the model was built."""
    floor_seconds: float
    """The time of the matrix products that no formulation can do without."""


def _measure(side: Literal["ours", "published"]) -> Side:
    """Measure one side, in a process that has done nothing else."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    tokens, targets = torch.randint(VOCABULARY, (2, BATCH, LENGTH))
    memory = PeakMemory(torch.device("cpu"))
    model = PSMM(VOCABULARY, HIDDEN)
    loss = model.loss if side == "ours" else lambda *batch: published_loss(model, *batch)

    def step() -> None:
        model.zero_grad()
        loss(tokens, targets).backward()

    step()
    peak = memory.peak()
    if peak.value is None:
        raise RuntimeError(peak.reason)
    seconds, floor = least_processor_time(REPETITIONS, step, _necessary_products())
    return Side(seconds, peak.value / 1e6, floor)


def _necessary_products() -> Callable[[], None]:
    """Return a function that does the matrix products of one step and nothing else.

    Each product forward, and its two in the backward pass. They are done in pieces whose results
    stay in the cache, and in the faster of the possible layouts, like in the model.
    """
    rows = BATCH * LENGTH
    features, gates = torch.randn(rows, HIDDEN), torch.randn(rows, 4 * HIDDEN)
    layers = {words: torch.randn(words, HIDDEN) for words in (HIDDEN, 4 * HIDDEN, VOCABULARY)}

    def linear(weight: Tensor) -> None:
        d_weight = torch.zeros(weight.t().shape)
        outputs = torch.empty(LOGITS_AT_ONCE // len(weight), len(weight))
        for piece in features.split(len(outputs)):
            torch.mm(piece, weight.t(), out=outputs[: len(piece)])
            outputs[: len(piece)] @ weight
            d_weight.addmm_(piece.t(), outputs[: len(piece)])

    def recurrence() -> None:
        weight = layers[4 * HIDDEN]
        for step in gates.split(BATCH):
            step @ weight
            features[:BATCH] @ weight.t()
        gates.t() @ features

    def attention() -> None:
        states = features.view(BATCH, LENGTH, HIDDEN)
        scores = states @ states.transpose(1, 2)
        scores @ states
        scores.transpose(1, 2) @ states

    def products() -> None:
        for weight in layers.values():
            linear(weight)
        recurrence()
        attention()

    return products
