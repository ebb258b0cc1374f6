"""How to train around pruning: what learns, what is added to the loss, what is watched.

For the arguments ``only``, ``penalty`` and ``watch`` of `harness.run.Run.train`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from harness.scoring import Scores
from harness.units import Units
from pruners.channels.composition import norms, of_channels
from pruners.channels.units import Channels
from pruners.normalisation import norm_scales


def norms_and_head(model: nn.Module) -> list[str]:
    """Pick all parameters but those of convolutions: normalisation and linear layers."""
    kernels = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, _ConvNd)
        for parameter in module.parameters(recurse=False)
    }
    return [name for name, parameter in model.named_parameters() if id(parameter) not in kernels]


@dataclass(frozen=True)
class L1:
    """A penalty: ``strength`` times the sum of magnitudes.

    Args:
        parameters: picks them from the model.
        strength: how much a magnitude of one adds to the loss.
    """

    parameters: Callable[[nn.Module], Mapping[str, Tensor]]
    strength: float

    def __call__(self, model: nn.Module) -> Tensor:
        """Return the penalty."""
        magnitudes = [tensor.abs().sum() for tensor in self.parameters(model).values()]
        return self.strength * torch.stack(magnitudes).sum()


@dataclass
class Taylor:
    """Watches what the loss would lose with each channel, to first order, in every step.

    ``sum over steps of |phi dL/dphi|`` for a gate ``phi`` behind the normalisation (You et al.
    2019, arXiv:1909.08174). There a gate takes the place of the scale; here none is put in, as its
    gradient is that of scale and shift: ``phi dL/dphi = gamma dL/dgamma + beta dL/dbeta``. Coupled
    channels have several, which are summed. Groups without normalisation are not scored.
    """

    units: type[Channels] = Channels
    _sums: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def after_backward(self, model: nn.Module, units: Units) -> None:
        """Add up the magnitudes of one step."""
        assert isinstance(units, Channels)
        norm_scales(model)  # refuses a network without any
        for name, layers in norms(model, units.graph).items():
            for layer, member in layers:
                importance = of_channels(_gate_gradient(layer), member).sum(1).abs()
                before = self._sums.get(name, torch.zeros_like(importance))
                self._sums[name] = before.to(importance.device) + importance

    def scores(self) -> Scores:
        """Return the sums."""
        return dict(self._sums)

    def state(self) -> dict[str, Any]:
        """Return the sums so far."""
        return dict(self._sums)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a state."""
        self._sums = dict(state)


def _gate_gradient(norm: nn.Module) -> Tensor:
    """Return ``gamma dL/dgamma + beta dL/dbeta`` of a normalisation layer, for each channel."""
    parameters = [p for p in norm.parameters(recurse=False) if p.grad is not None]
    return torch.stack([p.detach() * p.grad for p in parameters if p.grad is not None]).sum(0)


# Methods read like sentences: ``run.train(watch=taylor(), penalty=l1(norm_scales, 1e-4))``.
l1 = L1
taylor = Taylor
