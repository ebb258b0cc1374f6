"""The floating-point type and memory layout of training steps."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from harness.conditions import Conditions
from harness.task import Batch

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""By a tensor's dimensions: images and volumes."""


@dataclass(frozen=True)
class Precision:
    """The conditions ``precision`` and ``channels_last`` (`harness.conditions`).

    They speed up training steps on accelerators. Weights, scores, evaluation and inference stay
    in float32.
    """

    dtype: str = "float32"
    channels_last: bool = False

    @classmethod
    def of(cls, conditions: Conditions) -> Precision:
        """Return the precision that the conditions ask for."""
        return cls(conditions.precision, conditions.channels_last)

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Return a context for computing the loss of a step."""
        if self.dtype == "float32":
            return nullcontext()
        return torch.autocast(device.type, getattr(torch, self.dtype))

    def laid_out(self, batch: Batch) -> Batch:
        """Return a batch in the requested memory layout.

        Layers pass the layout on. Weights keep their own, so that cutting and restoring them need
        not know about it.
        """
        if not self.channels_last:
            return batch
        return tree_map_only(Tensor, _channels_last, batch)


FLOAT32 = Precision()
"""The default."""


def _channels_last(tensor: Tensor) -> Tensor:
    layout = _CHANNELS_LAST.get(tensor.dim(), torch.preserve_format)
    return tensor.to(memory_format=layout)
