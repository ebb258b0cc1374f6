"""Small masked networks, and what comes out of them densely and sparsely."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from harness.prunable import prunable_weights
from harness.sparse_kernels import SparseExecution

Masks = dict[str, Tensor]


def pruned(model: nn.Module, density: float, seed: int = 0) -> Masks:
    """Remove weights of a model at random, and return the masks."""
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for name, weight in prunable_weights(model).items():
        masks[name] = torch.rand(weight.shape, generator=generator) < density
        weight.data *= masks[name]
    return masks


def outcome(
    model: nn.Module, masks: Masks, inputs: Tensor, sparse: bool, **options: Any
) -> dict[str, Tensor]:
    """Return outputs with and without a graph, and the gradients of all but removed weights."""
    model = copy.deepcopy(model)
    inputs = inputs.clone().requires_grad_()
    execution = SparseExecution(model, masks, **options) if sparse else contextlib.nullcontext()
    with execution:
        found = {f"output {n}": each for n, each in enumerate(tensors(model(inputs)))}
        generator = torch.Generator().manual_seed(1)
        losses = [
            (each * torch.randn(each.shape, generator=generator, dtype=each.dtype)).sum()
            for each in found.values()
        ]
        torch.stack(losses).sum().backward()
        with torch.no_grad():
            inferred = model.eval()(inputs.detach())
    found |= {f"inferred {n}": each for n, each in enumerate(tensors(inferred))}
    assert inputs.grad is not None
    found["gradient of the input"] = inputs.grad
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        if sparse and name in masks:
            assert not parameter.grad[~masks[name]].any()
        found[f"gradient of {name}"] = parameter.grad * masks.get(name, 1)
    return {name: each.detach() for name, each in found.items()}


def tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    else:
        for value in values:
            yield from tensors(value)


def assert_alike(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Require equal numbers, to rounding."""
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        scale = max(1.0, float(tensor.abs().max())) if tensor.numel() else 1.0
        tolerance = scale * (1e-11 if tensor.dtype == torch.float64 else 2e-3)
        assert other[name].shape == tensor.shape, name
        assert torch.allclose(other[name], tensor, rtol=0, atol=tolerance), name
