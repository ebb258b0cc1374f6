"""The dense network with entries held at zero, as a reference for any way to cut a network.

The reference knows nothing of channels: it is told which entries of which parameter are left. What
is taken over channels, such as the mean in a normalisation or the scale of attention, counts those
that are not zero everywhere, as in the cut network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Cut = Callable[[nn.Module], object]
"""Makes a network smaller in place, in the same way whatever its weights."""


def entries_left(model: nn.Module, cut: Cut) -> dict[str, Tensor]:
    """Return which entries of each parameter a cut leaves, as masks in the shape of the parameter.

    A copy of the network whose entries are their own numbers is cut, and the numbers are read.
    """
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            numbers = torch.arange(parameter.numel(), dtype=torch.double)
            parameter.copy_(numbers.view(parameter.shape))
    cut(twin)
    left = dict(twin.named_parameters())
    masks = {}
    for name, parameter in model.named_parameters():
        mask = torch.zeros(parameter.numel())
        mask[left[name].detach().flatten().long()] = 1
        masks[name] = mask.view(parameter.shape)
    return masks


def masked_copy(model: nn.Module, masks: dict[str, Tensor]) -> nn.Module:
    """Return a copy of a network with all other entries set to zero."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            parameter.mul_(masks[name].to(parameter.dtype))
    return twin


class InDouble(TorchFunctionMode):
    """Keeps double precision where a network's code converts to single precision."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {name: _double(value) for name, value in (kwargs or {}).items()}
        if func is Tensor.float:
            return args[0].double() if args[0].is_floating_point() else args[0].to(torch.double)
        return func(*map(_double, args), **kwargs)


def _double(value: Any) -> Any:
    return torch.double if value is torch.float else value


class KeptOnly(TorchFunctionMode):
    """Leaves out channels that are zero everywhere where an operation counts channels."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _NORMALISATIONS:
            return _normalised(func, *args, **kwargs)
        if func in _STATISTICS and _over_last(args, kwargs):
            kept = _kept(args[0])
            return func(args[0].index_select(-1, kept), *args[1:], **kwargs)
        if func is F.scaled_dot_product_attention and kwargs.get("scale") is None:
            kwargs = {**kwargs, "scale": len(_kept(args[0])) ** -0.5}
        return func(*args, **kwargs)


_NORMALISATIONS = (F.layer_norm, torch.layer_norm, F.rms_norm, torch.rms_norm)
_STATISTICS = (
    *(torch.mean, torch.Tensor.mean, torch.var, torch.Tensor.var, torch.std, torch.Tensor.std),
    torch.var_mean,
)


def _kept(x: Tensor) -> Tensor:
    """Return the channels on the last axis that are not zero everywhere; all if all are zero."""
    nonzero = (x != 0).flatten(0, -2).any(dim=0)
    return (nonzero if nonzero.any() else ~nonzero).nonzero().squeeze(1)


def _over_last(args: Any, kwargs: Any) -> bool:
    x, dim = args[0], kwargs.get("dim", args[1] if len(args) > 1 else None)
    dims = [dim] if isinstance(dim, int) else dim
    is_dims = isinstance(dims, (list, tuple)) and len(dims) == 1
    return is_dims and x.dim() > 1 and dims[0] in (-1, x.dim() - 1)


def _normalised(func: Any, x: Tensor, shape: Any, *args: Any, **kwargs: Any) -> Tensor:
    """Normalise over the kept channels only; the others stay zero."""
    if len(shape) > 1 or x.dim() < 2:
        return func(x, shape, *args, **kwargs)  # type: ignore[no-any-return]  # torch has no types
    kept = _kept(x)

    def chosen(value: Any) -> Any:
        return value.index_select(0, kept) if isinstance(value, Tensor) else value

    own = {name: chosen(value) for name, value in kwargs.items()}
    normalised = func(x.index_select(-1, kept), (len(kept),), *map(chosen, args), **own)
    return torch.zeros_like(x).index_copy(-1, kept, normalised)
