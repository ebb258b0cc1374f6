"""Optimizer steps on surviving weights only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

ELEMENTWISE = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
"""Optimizers that treat each weight apart, and leave a weight at zero whose gradient and moments
are zero."""
DENSEST = 0.3
"""Weights with a larger share left are stepped whole, which is then as fast."""


class SparseSteps:
    """Takes the steps of an optimizer on the surviving weights.

    The surviving weights of all layers are collected in one vector, which takes the step, and
    are put back. The outcome is that of ``optimizer.step()`` to rounding, provided that gradients
    and moments of removed weights are zero, as masks make them. Parameters and the optimizer's
    state keep their shapes.

    Args:
        model: whose weights are masked.
        masks: what survives, by the weight's name.
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        parameters = dict(model.named_parameters(remove_duplicate=False))
        self._places = {
            parameters[name]: mask.to(parameters[name].device).flatten().nonzero().flatten()
            for name, mask in masks.items()
            if int(mask.count_nonzero()) <= DENSEST * mask.numel()
        }
        self._vectors: dict[tuple[nn.Parameter, ...], _Vector] = {}

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Take one step."""
        if type(optimizer) not in ELEMENTWISE:
            optimizer.step()
            return
        groups = [group["params"] for group in optimizer.param_groups]
        taken = []
        for group, parameters in zip(optimizer.param_groups, groups, strict=True):
            alike: dict[tuple[Any, ...], list[nn.Parameter]] = {}
            whole = []
            for parameter in parameters:
                if parameter in self._places and parameter.grad is not None:
                    key = _alike(parameter, optimizer.state.get(parameter, {}))
                    alike.setdefault(key, []).append(parameter)
                else:
                    whole.append(parameter)
            vectors = [self._vector(tuple(members)) for members in alike.values()]
            group["params"] = [*whole, *(vector.parameter for vector in vectors)]
            taken += vectors
        for vector in taken:
            vector.gather(optimizer)
        try:
            optimizer.step()
        finally:
            for group, parameters in zip(optimizer.param_groups, groups, strict=True):
                group["params"] = parameters
            for vector in taken:
                vector.scatter(optimizer)

    def _vector(self, members: tuple[nn.Parameter, ...]) -> _Vector:
        if members not in self._vectors:
            self._vectors[members] = _Vector({each: self._places[each] for each in members})
        return self._vectors[members]


def _alike(parameter: nn.Parameter, state: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what parameters have to have in common to be stepped as one."""
    scalars = (
        (key, None if value is None else float(value))
        for key, value in state.items()
        if not isinstance(value, Tensor) or value.dim() == 0
    )
    return (parameter.dtype, parameter.device, tuple(state), *scalars)


class _Vector:
    """The surviving entries of parameters, for one step a parameter themselves."""

    def __init__(self, places: Mapping[nn.Parameter, Tensor]) -> None:
        self._places = places
        self._sizes = [len(each) for each in places.values()]
        first = next(iter(places))
        self.parameter = nn.Parameter(first.new_empty(sum(self._sizes)))
        self._gradient = torch.empty_like(self.parameter, requires_grad=False)
        self._states: dict[nn.Parameter, dict[str, Any]] = {}

    def gather(self, optimizer: torch.optim.Optimizer) -> None:
        """Take over values, gradients and state."""
        self._states = {each: optimizer.state.pop(each, {}) for each in self._places}
        self._take(self.parameter.detach(), list(self._places))
        self._take(self._gradient, [each.grad for each in self._places])
        self.parameter.grad = self._gradient
        first = next(iter(self._states.values()))
        if not first:
            return
        mine = optimizer.state[self.parameter] = dict(first)
        for key, value in first.items():
            if isinstance(value, Tensor) and value.dim() > 0:
                mine[key] = torch.empty_like(self._gradient)
                self._take(mine[key], [state[key] for state in self._states.values()])
            elif isinstance(value, Tensor):
                mine[key] = value.clone()

    def scatter(self, optimizer: torch.optim.Optimizer) -> None:
        """Give values and state back."""
        mine = optimizer.state.pop(self.parameter, {})
        self._give([each.detach() for each in self._places], self.parameter.detach())
        for key, value in mine.items():
            for each, state in self._states.items():
                if not isinstance(value, Tensor):
                    state[key] = value
                elif value.dim() == 0:
                    state[key] = value.clone()
                elif state.get(key) is None:
                    state[key] = torch.zeros_like(each, requires_grad=False)
            if isinstance(value, Tensor) and value.dim() > 0:
                self._give([state[key] for state in self._states.values()], value)
        for each, state in self._states.items():
            if state:
                optimizer.state[each] = state
        self._states = {}

    def _take(self, vector: Tensor, dense: list[Any]) -> None:
        parts = zip(vector.split(self._sizes), dense, self._places.values(), strict=True)
        for part, tensor, places in parts:
            torch.index_select(tensor.detach().reshape(-1), 0, places, out=part)

    def _give(self, dense: list[Tensor], vector: Tensor) -> None:
        parts = zip(vector.split(self._sizes), dense, self._places.values(), strict=True)
        for part, tensor, places in parts:
            if tensor.is_contiguous():
                tensor.view(-1).scatter_(0, places, part)
            else:
                tensor.copy_(tensor.flatten().scatter_(0, places, part).view(tensor.shape))
