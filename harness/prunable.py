"""Which weights are prunable, and how many of them are left: the denominator of every sparsity."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils import prune as torch_prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from harness.units import Units, all_masks

LAYERS = (_ConvNd, nn.Linear, nn.Embedding, nn.RNNBase, nn.RNNCellBase)
"""Convolutions (transposed ones too), linear, embedding and recurrent layers."""


def prunable_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the prunable weights by name, tied ones once, in the order of the modules.

    First and last layers are included; biases, normalisation and free parameters never are. A
    weight computed from other parameters (``torch.nn.utils.parametrize``, weight and spectral
    normalisation) is represented by the parameter that has one entry for each of its entries.
    """
    found: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        if not isinstance(module, LAYERS):
            continue
        for local, parameter in _weights_of(module).items():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                found[f"{prefix}.{local}" if prefix else local] = parameter
    return found


def never_zero(model: nn.Module) -> dict[str, str]:
    """Return the layers whose weights cannot be held at zero, and what computes their weights.

    This is tried on copies: the weight must be zero exactly where the parameter behind it is
    zero. Weight normalisation divides by a norm that may vanish, and a matrix that is made
    orthogonal or symmetric has its zeros in other places.
    """
    return {
        prefix: computed.how
        for prefix, module in model.named_modules()
        if isinstance(module, LAYERS)
        for computed in _computed(module)
        if not _stays_zero(module, computed)
    }


def copied(model: nn.Module) -> nn.Module:
    """Return a deep copy, also of a network that caches computed weights, which torch refuses."""
    kept = [
        (module, computed.weight, vars(module)[computed.weight])
        for module in model.modules()
        for computed in _computed(module)
        if computed.weight in vars(module)
    ]
    try:
        for module, name, weight in kept:
            vars(module)[name] = weight.detach()
        return copy.deepcopy(model)
    finally:
        for module, name, weight in kept:
            vars(module)[name] = weight


def make_plain(model: nn.Module) -> dict[str, str]:
    """Turn all computed weights into plain parameters with their current values.

    Returns:
        The name of each weight, by the name of the parameter that represented it.
    """
    names: dict[str, str] = {}
    for prefix, module in list(model.named_modules()):
        start = f"{prefix}." if prefix else ""
        for computed in list(_computed(module)):
            names[start + computed.holder] = start + computed.weight
            _make_plain(module, computed)
    return names


@dataclass(frozen=True)
class _Computed:
    """A weight that a layer computes."""

    weight: str
    """Its name in the layer."""
    holder: str
    """The name of the parameter that represents it."""
    how: str
    """What computes it."""
    hook: Callable[[nn.Module, Any], None] | None = None
    """What computes it before each forward pass; None for ``parametrize``."""


def _weights_of(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that represent a layer's weights, by their names in the layer."""
    computed = list(_computed(module))
    scales = {f"{each.weight}_g" for each in computed if isinstance(each.hook, WeightNorm)}
    own = {
        name: parameter
        for name, parameter in module.named_parameters(recurse=False)
        if name.startswith("weight") and name not in scales
    }
    parameters = [each.holder for each in computed if each.hook is None]
    return own | {
        name: module.get_parameter(name)
        for name in parameters
        if name.split(".")[1].startswith("weight")
    }


def _computed(module: nn.Module) -> Iterator[_Computed]:
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            yield _Computed(hook.name, f"{hook.name}_v", "weight_norm", hook)
        elif isinstance(hook, SpectralNorm):
            yield _Computed(hook.name, f"{hook.name}_orig", "spectral_norm", hook)
        elif isinstance(hook, torch_prune.BasePruningMethod):
            name = hook._tensor_name
            yield _Computed(name, f"{name}_orig", "torch.nn.utils.prune", hook)
    parametrized = getattr(module, "parametrizations", None)
    if not isinstance(parametrized, nn.ModuleDict):
        return
    for name, chain in parametrized.items():
        originals = list(chain.named_parameters(recurse=False))
        if not originals:
            continue
        # Weight normalisation also has a vector of lengths, which comes first.
        holder, _ = max(enumerate(originals), key=lambda item: (item[1][1].numel(), item[0]))[1]
        how = ", ".join(type(step).__name__.strip("_") for step in chain.children())
        yield _Computed(name, f"parametrizations.{name}.{holder}", how)


def _stays_zero(module: nn.Module, computed: _Computed) -> bool:
    trial = copied(module).eval()
    holder = trial.get_parameter(computed.holder)
    whole = holder.detach().clone()
    every_other = torch.arange(whole.numel(), device=whole.device).view_as(whole) % 2 == 0
    for zero in (torch.ones_like(every_other), every_other):
        with torch.no_grad():
            holder.copy_(whole.masked_fill(zero, 0))
            weight = _compute(trial, computed)
        if weight.shape != whole.shape or not torch.equal(weight == 0, holder == 0):
            return False
    return True


def _compute(module: nn.Module, computed: _Computed) -> Tensor:
    hooks = (each.hook for each in _computed(module) if each.weight == computed.weight)
    if (hook := next(hooks)) is not None:
        hook(module, ())
    weight: Tensor = getattr(module, computed.weight)
    return weight


def _make_plain(module: nn.Module, computed: _Computed) -> None:
    match computed.hook:
        case WeightNorm():
            remove_weight_norm(module, computed.weight)
        case SpectralNorm():
            remove_spectral_norm(module, computed.weight)
        case torch_prune.BasePruningMethod():
            torch_prune.remove(module, computed.weight)
        case _ if parametrize.is_parametrized(module):
            # Not by torch's own function, which changes a class that copies share.
            names = list(module.get_submodule("parametrizations")._modules)
            values = {name: getattr(module, name).detach() for name in names}
            module.__class__ = parametrize.type_before_parametrizations(module)
            del module._modules["parametrizations"]
            for name, value in values.items():
                module.register_parameter(name, nn.Parameter(value))


Shapes = Mapping[str, tuple[int, ...]]


def dense_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the prunable weights by name."""
    return {name: tuple(weight.shape) for name, weight in prunable_weights(model).items()}


def layers(model: nn.Module, units: Iterable[Units], dense: Shapes) -> list[dict[str, Any]]:
    """Return for each prunable weight its name, its shapes, and its size before and after pruning.

    Args:
        model: the network, masked or cut.
        units: everything that can have pruned it.
        dense: the shapes before pruning, from `dense_shapes`.
    """
    masks = all_masks(units)
    now = prunable_weights(model)
    return [
        {
            "name": name,
            "dense_shape": list(shape),
            "shape": list(now[name].shape),
            "weights": math.prod(shape),
            "kept": int(masks[name].count_nonzero()) if name in masks else now[name].numel(),
        }
        for name, shape in dense.items()
    ]


def weight_sparsity(counts: Sequence[Mapping[str, Any]]) -> float:
    """Return the fraction of the dense network's prunable weights that has been removed."""
    kept = sum(int(layer["kept"]) for layer in counts)
    return 1 - kept / sum(int(layer["weights"]) for layer in counts)
