"""Forward passes with masked weights, while all weights learn (straight-through)."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn

from harness.operations import Masked
from harness.prunable import prunable_weights


class MaskedForward:
    """A context in which a network computes with masked weights.

    The masks are chosen once, from the weights at its beginning. The weights get their values back
    at its end, or as soon as the gradients of a step are there. They are masked in place: a network
    may use a weight without its layer, and copy it to a target network.

    Args:
        model: the network.
        masked: chooses the masks; None masks nothing.
    """

    def __init__(self, model: nn.Module, masked: Masked | None) -> None:
        self._model = model
        self._masked = masked
        self._whole: dict[str, Tensor] = {}
        """The values of each weight without masks."""

    @torch.no_grad()
    def __enter__(self) -> Self:
        if self._masked is not None:
            weights = prunable_weights(self._model)
            for name, kept in self._masked.masks(self._model).items():
                self._whole[name] = weights[name].detach().clone()
                weights[name].data.mul_(kept)
        return self

    @torch.no_grad()
    def pass_through(self) -> None:
        """Unmask the weights between the backward pass and the step, and add the decay.

        The gradient of a masked weight ``m w`` becomes that of the weight, plus ``decay w`` where
        it is masked.
        """
        weights = prunable_weights(self._model) if self._whole else {}
        for name, whole in self._whole.items():
            weight = weights[name]
            if self._masked is not None and weight.grad is not None:
                weight.grad.add_(whole - weight, alpha=self._masked.decay)
            weight.data.copy_(whole)
        self._whole = {}

    @torch.no_grad()
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        weights = prunable_weights(self._model) if self._whole else {}
        for name, whole in self._whole.items():
            weights[name].data.copy_(whole)
