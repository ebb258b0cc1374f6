"""Optimizer steps on surviving weights only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    are put back. The outcome is that of ``optimizer.step()`` to rounding, with the gradients of
    removed weights at zero before, and the weights at zero after. Parameters and the optimizer's
    state keep their shapes.

    Args:
        model: whose weights are masked.
        masks: what survives, by the weight's name.
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        parameters = dict(model.named_parameters(remove_duplicate=False))
        self._masks = {parameters[name]: mask for name, mask in masks.items() if not mask.all()}
        self._places = {
            parameter: mask.to(parameter.device).flatten().nonzero().flatten()
            for parameter, mask in self._masks.items()
            if int(mask.count_nonzero()) <= DENSEST * mask.numel()
        }
        self._vectors: dict[tuple[nn.Parameter, ...], _Vector] = {}

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Take one step."""
        apart = self._places if type(optimizer) in ELEMENTWISE else {}
        whole = {each: mask for each, mask in self._masks.items() if each not in apart}
        for parameter, mask in whole.items():
            if parameter.grad is not None:
                parameter.grad.mul_(mask)
        groups = [group["params"] for group in optimizer.param_groups]
        vectors: list[_Vector] = []
        for group, parameters in zip(optimizer.param_groups, groups, strict=True):
            alike: dict[tuple[Any, ...], list[nn.Parameter]] = {}
            others = []
            for parameter in parameters:
                if parameter in apart and parameter.grad is not None:
                    key = _alike(parameter, optimizer.state.get(parameter, {}))
                    alike.setdefault(key, []).append(parameter)
                else:
                    others.append(parameter)
            of_group = [self._vector(tuple(members)) for members in alike.values()]
            group["params"] = [*others, *(vector.parameter for vector in of_group)]
            vectors += of_group
        for vector in vectors:
            vector.gather(optimizer)
        try:
            optimizer.step()
        finally:
            for group, parameters in zip(optimizer.param_groups, groups, strict=True):
                group["params"] = parameters
            for vector in vectors:
                vector.scatter(optimizer)
        with torch.no_grad():
            for parameter, mask in whole.items():
                parameter.mul_(mask)

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
        self._members = list(places)
        self._places = list(places.values())
        first = self._members[0]
        self.parameter = nn.Parameter(first.new_empty(sum(map(len, self._places))))
        self._values = _Parts(self.parameter.detach(), self._places)
        self._gradient = _Parts(torch.empty_like(self._values.vector), self._places)
        self._moments: dict[str, _Parts] = {}
        self._states: list[dict[str, Any]] = []

    def gather(self, optimizer: torch.optim.Optimizer) -> None:
        """Take over values, gradients and state."""
        self._states = [optimizer.state.pop(each, {}) for each in self._members]
        self._values.take(self._members)
        self._gradient.take([each.grad for each in self._members])
        self.parameter.grad = self._gradient.vector
        mine: dict[str, Any] = {}
        for key, value in self._states[0].items():
            if isinstance(value, Tensor) and value.dim() > 0:
                parts = self._moment(key, None)
                parts.take([state[key] for state in self._states])
                mine[key] = parts.vector
            else:
                mine[key] = value.clone() if isinstance(value, Tensor) else value
        if mine:
            optimizer.state[self.parameter] = mine

    def scatter(self, optimizer: torch.optim.Optimizer) -> None:
        """Give values and state back."""
        mine = optimizer.state.pop(self.parameter, {})
        self._values.give(self._members)
        for key, value in mine.items():
            moment = isinstance(value, Tensor) and value.dim() > 0
            for each, state in zip(self._members, self._states, strict=True):
                if not moment:
                    state[key] = value.clone() if isinstance(value, Tensor) else value
                elif state.get(key) is None:
                    state[key] = torch.zeros_like(each, requires_grad=False)
            if moment:
                self._moment(key, value).give([state[key] for state in self._states])
        for each, state in zip(self._members, self._states, strict=True):
            if state:
                optimizer.state[each] = state
        self._states = []

    def _moment(self, key: str, vector: Tensor | None) -> _Parts:
        """Return the vector of one kind of moment, the optimizer's own where it made one."""
        known = self._moments.get(key)
        if known is None or (vector is not None and vector is not known.vector):
            vector = torch.empty_like(self._values.vector) if vector is None else vector
            known = self._moments[key] = _Parts(vector, self._places)
        return known


class _Parts:
    """A vector of which each tensor of several has a part.

    A part is not copied again from a tensor that nobody has changed since it was copied there.

    Args:
        vector: the whole.
        places: for each tensor, which of its entries the part consists of.
    """

    def __init__(self, vector: Tensor, places: Sequence[Tensor]) -> None:
        self.vector = vector
        self._places = places
        self._parts = vector.split([len(each) for each in places])
        self._given: list[tuple[Tensor, int] | None] = [None] * len(places)

    def take(self, tensors: Sequence[Tensor | None]) -> None:
        """Copy from the tensors."""
        for number, tensor in enumerate(tensors):
            assert tensor is not None
            given = self._given[number]
            if given is None or given[0] is not tensor or given[1] != tensor._version:
                flat = tensor.detach().reshape(-1)
                torch.index_select(flat, 0, self._places[number], out=self._parts[number])

    @torch.no_grad()
    def give(self, tensors: Sequence[Tensor]) -> None:
        """Copy into the tensors."""
        for number, tensor in enumerate(tensors):
            part, places = self._parts[number], self._places[number]
            if tensor.is_contiguous():
                tensor.view(-1).scatter_(0, places, part)
            else:
                tensor.copy_(tensor.flatten().scatter_(0, places, part).view(tensor.shape))
            self._given[number] = (tensor, tensor._version)
