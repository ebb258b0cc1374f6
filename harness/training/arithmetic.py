"""In what precision and layout a training step computes."""

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
class Arithmetic:
    """The conditions ``precision`` and ``channels_last`` (`harness.conditions`).

    They are for speed on accelerators and hold for training steps only: weights, scores,
    evaluation and inference stay in float32.
    """

    precision: str = "float32"
    channels_last: bool = False

    @classmethod
    def of(cls, conditions: Conditions) -> Arithmetic:
        """Return what the conditions ask for."""
        return cls(conditions.precision, conditions.channels_last)

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context in which the loss of a step is computed."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(device.type, getattr(torch, self.precision))

    def laid_out(self, batch: Batch) -> Batch:
        """Return a batch in the layout that is asked for.

        The layers hand it on. Weights keep theirs, so that cutting and restoring them do not
        have to know of it.
        """
        if not self.channels_last:
            return batch
        return tree_map_only(Tensor, _channels_last, batch)


FLOAT32 = Arithmetic()
"""What holds unless something else is asked for."""


def _channels_last(tensor: Tensor) -> Tensor:
    layout = _CHANNELS_LAST.get(tensor.dim(), torch.preserve_format)
    return tensor.to(memory_format=layout)
