"""The speed and memory of the pointer sentinel mixture model, beside its published formulation.

``python -m benchmarks.psmm`` measures both at the paper's size. Each side runs in a process of
its own, on one thread, from the same weights and the same dropout masks.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tasks.ptb.model import LOGITS_AT_ONCE, PSMM

Side = Literal["ours", "published"]

BATCH, LENGTH, VOCABULARY, HIDDEN = 128, 79, 10_000, 300


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


@dataclass(frozen=True)
class Measurement:
    """What a training step's forward and backward pass costs."""

    ours_seconds: float
    published_seconds: float
    floor_seconds: float
    """The time of the matrix products that no formulation can do without."""
    ours_bytes: int
    """Peak memory beyond what the process held before the model was built."""
    published_bytes: int


def measure() -> Measurement:
    """Measure both formulations at the paper's size, each in a fresh process on one thread.

    Raises:
        subprocess.CalledProcessError: a side failed.
    """
    ours, published = _measure_in_new_process("ours"), _measure_in_new_process("published")
    return Measurement(
        ours_seconds=ours["seconds"],
        published_seconds=published["seconds"],
        floor_seconds=ours["floor"],
        ours_bytes=int(ours["bytes"]),
        published_bytes=int(published["bytes"]),
    )


def _measure_in_new_process(side: Side) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.psmm", "--side", side]
    answer = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return found


def _measure_here(side: Side) -> dict[str, float]:
    """Measure one side in this process, which must be a fresh one."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    tokens, targets = torch.randint(VOCABULARY, (2, BATCH, LENGTH))
    held_before = _memory("VmRSS")
    model = PSMM(VOCABULARY, HIDDEN)
    loss = model.loss if side == "ours" else lambda *batch: published_loss(model, *batch)

    def step() -> None:
        model.zero_grad()
        loss(tokens, targets).backward()

    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from here
    step()
    peak_bytes = float(_memory("VmHWM") - held_before)
    if side == "published":
        return {"seconds": _fastest(1, step)[0], "bytes": peak_bytes}
    seconds, floor = _fastest(5, step, _necessary_products())
    return {"seconds": seconds, "bytes": peak_bytes, "floor": floor}


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


def _fastest(repetitions: int, *actions: Callable[[], None]) -> list[float]:
    """Return the least processor time of each action in seconds; they take turns.

    On one thread that is how long it takes when nobody else wants the core: waiting for one is
    not counted, and whatever else a busy machine does can only add.
    """
    seconds: list[list[float]] = [[] for _ in actions]
    for _ in range(repetitions):
        for action, times in zip(actions, seconds, strict=True):
            start = time.process_time()
            action()
            times.append(time.process_time() - start)
    return [min(times) for times in seconds]


def _memory(field: Literal["VmRSS", "VmHWM"]) -> int:
    """Return the resident bytes of this process: now, or at most so far."""
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=["ours", "published"], help="measure one, as JSON")
    side = parser.parse_args().side
    if side:
        print(json.dumps(_measure_here(side)))
        return
    found = measure()
    speed = found.published_seconds / found.ours_seconds
    print(f"ours       {found.ours_seconds:7.2f} s  {found.ours_bytes / 2**20:7.0f} MiB")
    print(f"published  {found.published_seconds:7.2f} s  {found.published_bytes / 2**20:7.0f} MiB")
    print(f"speed      {speed:7.1f} times the published formulation's")
    print(f"memory     {found.ours_bytes / found.published_bytes:7.3f} of the published's")
    print(f"floor      {found.floor_seconds:7.2f} s of matrix products")
    print(f"multiple   {found.ours_seconds / found.floor_seconds:7.2f} times the floor")


if __name__ == "__main__":
    _main()
