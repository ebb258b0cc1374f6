"""The code of a network: what it says, and that it is all that its tensors need."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from harness.errors import RunFailed
from harness.export import formats
from harness.export.plain_torch import source, write_plain_torch
from harness.export.program import Program, network_inputs, trace
from harness.network import Network
from harness.task import Task


class Numbers(Task):
    """Hands five samples of three numbers to the network."""

    def __init__(self, *, as_keyword: bool = False) -> None:
        self._as_keyword = as_keyword

    def scoring_batches(self, seed: int) -> list[Any]:
        return list(torch.arange(15.0).reshape(5, 3).split(2))

    def inference(self, model: nn.Module, batch: Any) -> object:
        return model(batch, weight=2.0) if self._as_keyword else model(batch)
