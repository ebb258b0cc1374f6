"""Was the right thing cut?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import RunFailed
from pruners.channels.gating import masked
from pruners.channels.groups import ChannelGraph, Keep
from pruners.channels.tensors import replaced, returned_tensors


def verify_shrink(
    dense: nn.Module,
    graph: ChannelGraph,
    keep: Keep,
    shrunk: nn.Module,
    example_inputs: Tensor | Sequence[Any],
    *,
    forward: Callable[..., Any] | None = None,
    tolerance: float = 1e-5,
) -> float:
    """Compare a shrunk model with the dense one whose other channels are held at zero.

    Both run in the modes they are in, from the same random state; buffers stay as they were.

    Args:
        dense: the model before the removal.
        graph: its groups.
        keep: what was kept.
        shrunk: the model after the removal.
        example_inputs: one tensor, or the sequence of all arguments.
        forward: called as ``forward(model, *example_inputs)`` in place of ``model(...)``.
        tolerance: how far outputs may be apart; 1e-10 suits double precision.

    Returns:
        The largest difference of any output, relative to the largest output or one.

    Raises:
        RunFailed: the outputs differ by more. Networks in which an operation counts its channels
            (see `masked`) differ by nature.
    """
    inputs = [example_inputs] if isinstance(example_inputs, Tensor) else list(example_inputs)
    forward = forward or (lambda model, *inputs: model(*inputs))
    with masked(dense, graph, keep):
        expected = _outputs(dense, forward, inputs)
    found = _outputs(shrunk, forward, inputs)
    error = max(_difference(*pair) for pair in zip(expected, found, strict=True))
    if not error <= tolerance:
        raise RunFailed(f"the shrunk model differs from the masked one by {error:.2g}")
    return error


def _outputs(model: nn.Module, forward: Callable[..., Any], inputs: Sequence[Any]) -> list[Tensor]:
    devices = {tensor.device for tensor in model.parameters() if tensor.is_cuda}
    copies = {id(buffer): buffer.clone() for buffer in model.buffers()}
    with torch.no_grad(), torch.random.fork_rng(sorted(devices, key=str)), replaced(model, copies):
        return returned_tensors(forward(model, *inputs))


def _difference(expected: Tensor, found: Tensor) -> float:
    if not expected.numel():
        return 0.0
    return float((expected - found).abs().max() / expected.abs().max().clamp(min=1))
