"""What is left of a network, counted from masks and shapes, never from zeros."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from harness.prunable import prunable_weights
from harness.units import Units, all_masks

Shapes = Mapping[str, tuple[int, ...]]


def dense_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the prunable weights; of the dense network, the denominator."""
    return {name: tuple(weight.shape) for name, weight in prunable_weights(model).items()}


def layers(model: nn.Module, units: Iterable[Units], dense: Shapes) -> list[dict[str, Any]]:
    """Return for each prunable weight its name, shapes, and numbers of weights before and now."""
    masks = all_masks(units)
    now = prunable_weights(model)
    return [
        {
            "name": name,
            "dense_shape": list(shape),
            "shape": list(now[name].shape),
            "weights": math.prod(shape),
            "kept": int(masks[name].sum()) if name in masks else now[name].numel(),
        }
        for name, shape in dense.items()
    ]


def weight_sparsity(counts: Sequence[Mapping[str, Any]]) -> float:
    """Return the fraction of the dense network's prunable weights that is gone."""
    kept = sum(int(layer["kept"]) for layer in counts)
    return 1 - kept / sum(int(layer["weights"]) for layer in counts)
