"""The recipe's optimizer, equal for every method."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


def build_optimiser(
    parameters: Iterable[Tensor], settings: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """Return the optimiser that a task's settings name, with their weight decay."""
    rate, decay = settings["learning_rate"], settings["weight_decay"]
    match settings["optimiser"]:
        case "adam":
            return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
        case "adamw":
            return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
        case "sgd":
            return torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=decay)
    raise AssertionError(settings["optimiser"])
