"""What happens while a run trains: which parameters learn, penalties, watched scores.

These are values for the arguments ``only``, ``penalty`` and ``watch`` of `harness.run.Run.train`,
as in ``run.train(only=norms_and_head, penalty=L1(norm_scales, 1e-4), watch=Taylor())``.
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
from pruners.channels.composition import (
    coupled_norms,
    filters,
    gate_gradients,
    norm_scales,
    norms,
    of_channels,
)
from pruners.channels.units import Channels

__all__ = [
    "L1",
    "GroupSparsity",
    "SmallestFilters",
    "SquaredTaylor",
    "Taylor",
    "l1",
    "norm_scales",
    "norms_and_head",
    "taylor",
]


def norms_and_head(model: nn.Module) -> list[str]:
    """Return the names of all parameters except those of convolutions."""
    kernels = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, _ConvNd)
        for parameter in module.parameters(recurse=False)
    }
    return [name for name, parameter in model.named_parameters() if id(parameter) not in kernels]


@dataclass(frozen=True)
class L1:
    """A penalty: ``strength`` times the sum of the magnitudes of some parameters.

    Args:
        parameters: returns them, by name, from the model.
        strength: what a magnitude of one adds to the loss.
    """

    parameters: Callable[[nn.Module], Mapping[str, Tensor]]
    strength: float

    def __call__(self, model: nn.Module) -> Tensor:
        """Return the penalty of a model, a scalar."""
        magnitudes = [tensor.abs().sum() for tensor in self.parameters(model).values()]
        return self.strength * torch.stack(magnitudes).sum()


@dataclass(frozen=True)
class GroupSparsity:
    """A penalty on whole channels: ``strength / 2 * sum gamma_j |W[j]|^2``.

    The sum runs over all channels ``j`` and everything that is cut with them. The factor is a
    constant in each step, 1 for the most important channel of a group, ``2^contrast`` for the
    least::

        gamma_j = 2^(contrast * (I_max - I_j) / (I_max - I_min))

    ``I_j`` is the root of the mean of ``|W[j]|^2`` over the coupled weights. The gradient of the
    penalty is ``strength * gamma_j * w``, which drives the least important channels to zero
    (DepGraph, Fang et al. 2023, arXiv:2301.12900).

    Args:
        strength: factor of the penalty.
        contrast: the logarithm of the largest factor to base two.
    """

    strength: float
    contrast: float = 4.0
    units: type[Channels] = field(default=Channels, init=False)

    def __call__(self, model: nn.Module, units: Units) -> Tensor:
        """Return the penalty of a model, a scalar."""
        assert isinstance(units, Channels)
        penalties = [
            (self._factors(norms.detach()) * norms.sum(0)).sum()
            for norms in coupled_norms(model, units.graph).values()
        ]
        return self.strength / 2 * torch.stack(penalties).sum()

    def _factors(self, norms: Tensor) -> Tensor:
        importance = norms.mean(0).sqrt()
        largest, smallest = importance.max(), importance.min()
        tiny = torch.finfo(importance.dtype).tiny
        return 2 ** (self.contrast * (largest - importance) / (largest - smallest).clamp(min=tiny))


@dataclass(frozen=True)
class SmallestFilters:
    """A penalty on the filters with the smallest L1 norms: ``strength / 2 * sum |W_j|^2``.

    In each group they are the share ``share`` of all channels, rounded down. Those that are
    penalised shrink, and so they remain the smallest (growing regularisation, Wang et al. 2021,
    arXiv:2012.09243).

    Args:
        share: the share of the channels of each group.
        strength: factor of the penalty.
    """

    share: float
    strength: float
    units: type[Channels] = field(default=Channels, init=False)

    def __call__(self, model: nn.Module, units: Units) -> Tensor:
        """Return the penalty of a model, a scalar."""
        assert isinstance(units, Channels)
        penalties = []
        for own in filters(model, units.graph).values():
            norms = torch.stack([weights.detach().abs().sum(1) for weights in own]).sum(0)
            smallest = norms.argsort(stable=True)[: int(self.share * len(norms))]
            penalties += [weights[smallest].square().sum() for weights in own]
        return self.strength / 2 * torch.stack(penalties).sum()


@dataclass
class SquaredTaylor:
    """Watches how much the loss depends on each channel: the mean over steps of ``(dL/dc)^2``.

    ``c`` is a gate behind the channel's normalisation, or behind its layer if there is none. No
    gate is inserted, see `pruners.channels.composition.gate_gradients`. To first order, the score
    is the squared change of the loss without the channel (Molchanov et al. 2019, arXiv:1906.10771).
    """

    units: type[Channels] = Channels
    _sums: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)
    _steps: int = field(default=0, init=False, repr=False, compare=False)

    def after_backward(self, model: nn.Module, units: Units) -> None:
        """Add the squares of one step."""
        assert isinstance(units, Channels)
        for name, gradient in gate_gradients(model, units.graph).items():
            before = self._sums.get(name, torch.zeros_like(gradient))
            self._sums[name] = before.to(gradient.device) + gradient.square()
        self._steps += 1

    def scores(self) -> Scores:
        """Return the means, a vector for each group of channels."""
        return {name: total / self._steps for name, total in self._sums.items()}

    def state(self) -> dict[str, Any]:
        """Return the sums and the number of steps."""
        return {"sums": dict(self._sums), "steps": self._steps}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        self._sums, self._steps = dict(state["sums"]), state["steps"]


@dataclass
class Taylor:
    """Watches how much the loss depends on each channel, to first order, in every step.

    The score is the sum over steps of ``|phi dL/dphi|``, for a gate ``phi`` in place of the scale
    of normalisation (You et al. 2019, arXiv:1909.08174). No gate is inserted, because scale and
    shift give the same number: ``phi dL/dphi = gamma dL/dgamma + beta dL/dbeta``. The scores of
    coupled channels are summed. Groups without normalisation are not scored.
    """

    units: type[Channels] = Channels
    _sums: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def after_backward(self, model: nn.Module, units: Units) -> None:
        """Add the scores of one step."""
        assert isinstance(units, Channels)
        norm_scales(model)  # raises if there are none
        for name, layers in norms(model, units.graph).items():
            for layer, member in layers:
                importance = of_channels(_gate_gradient(layer), member).sum(1).abs()
                before = self._sums.get(name, torch.zeros_like(importance))
                self._sums[name] = before.to(importance.device) + importance

    def scores(self) -> Scores:
        """Return the sums, a vector for each group of channels."""
        return dict(self._sums)

    def state(self) -> dict[str, Any]:
        """Return the sums."""
        return dict(self._sums)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        self._sums = dict(state)


def _gate_gradient(norm: nn.Module) -> Tensor:
    """Return ``gamma dL/dgamma + beta dL/dbeta`` of a normalisation layer, for each channel."""
    parameters = [p for p in norm.parameters(recurse=False) if p.grad is not None]
    return torch.stack([p.detach() * p.grad for p in parameters if p.grad is not None]).sum(0)


# The lower-case names are for methods of plug-ins that use them.
l1 = L1
"""Another name of `L1`."""
taylor = Taylor
"""Another name of `Taylor`."""
