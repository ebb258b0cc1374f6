"""Attributes of modules that tell the sizes of their tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import is_parametrized

from pruners.channels.sizes import Width

Shapes = Mapping[str, torch.Size]
"""The shapes of a module's own parameters and buffers, by their names in it."""


def size_attributes(
    module: nn.Module, shapes: Shapes, kept_outputs: Tensor | None = None
) -> dict[str, Any]:
    """Return the attributes that a module has with tensors of these shapes.

    Args:
        module: of any kind; of one that is not known, or whose weights are computed, nothing
            is returned.
        shapes: of its tensors.
        kept_outputs: of a convolution that is cut, which positions of its weight's first axis
            stay (a boolean each).
    """
    if isinstance(module, _ConvNd):
        return _convolution(module, shapes, kept_outputs) if "weight" in shapes else {}
    for kind, tensor, read in _SIZES:
        if isinstance(module, kind) and tensor in shapes:
            return read(module, shapes)
    return {}


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's own parameters and buffers, by their names in it.

    Where its weight is computed, as by weight or spectral normalisation, the tensor of the same
    shape that it is computed from stands for it.
    """
    held = {**module._parameters, **module._buffers}
    own = {name: tensor for name, tensor in held.items() if tensor is not None}
    shape = _weight_shape(module) if "weight" not in own else None
    if shape is not None:
        candidates = [*own.values()]
        if is_parametrized(module, "weight"):
            computed: Any = module.parametrizations
            candidates = [*computed["weight"].parameters(recurse=False)]
        same = next((tensor for tensor in candidates if tensor.shape == shape), None)
        if same is not None:
            own["weight"] = same
    return own


def _weight_shape(module: nn.Module) -> tuple[int, ...] | None:
    """Return the shape that a layer's attributes give its weight."""
    if isinstance(module, _ConvNd):
        channels = [module.out_channels, module.in_channels]
        first, second = reversed(channels) if module.transposed else channels
        return first, second // module.groups, *module.kernel_size
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    return None


def _convolution(module: Any, shapes: Shapes, kept: Tensor | None) -> dict[str, Any]:
    first, second = shapes["weight"][:2]
    groups = module.groups
    if isinstance(first, Width) and groups == module.in_channels > 1:
        groups = first if module.transposed else first.every(module.out_channels // groups)
        outputs = second * groups if module.transposed else first
        return {"groups": groups, "in_channels": groups, "out_channels": outputs}
    if kept is not None:  # depthwise, a group goes with its channel; else each group keeps some
        groups = int(kept.view(groups, -1).any(dim=1).sum())
    if module.transposed:
        return {"groups": groups, "in_channels": first, "out_channels": second * groups}
    return {"groups": groups, "in_channels": second * groups, "out_channels": first}


def _linear(module: Any, shapes: Shapes) -> dict[str, Any]:
    return dict(zip(("out_features", "in_features"), shapes["weight"], strict=True))


def _bilinear(module: Any, shapes: Shapes) -> dict[str, Any]:
    names = ("out_features", "in1_features", "in2_features")
    return dict(zip(names, shapes["weight"], strict=True))


def _embedding(module: Any, shapes: Shapes) -> dict[str, Any]:
    return dict(zip(("num_embeddings", "embedding_dim"), shapes["weight"], strict=True))


def _normalised_shape(module: Any, shapes: Shapes) -> dict[str, Any]:
    return {"normalized_shape": tuple(shapes["weight"])}


def _group_norm(module: Any, shapes: Shapes) -> dict[str, Any]:
    channels = shapes["weight"][0]
    one_each = module.num_groups == module.num_channels
    return {"num_channels": channels, "num_groups": channels if one_each else module.num_groups}


def _recurrent(module: Any, shapes: Shapes) -> dict[str, Any]:
    rows, inputs = shapes["weight_ih_l0"]
    gates = {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
    sizes = {"input_size": inputs, "hidden_size": rows // gates}
    return sizes | ({"proj_size": shapes["weight_hr_l0"][0]} if module.proj_size else {})


def _recurrent_cell(module: Any, shapes: Shapes) -> dict[str, Any]:
    return {"input_size": shapes["weight_ih"][1], "hidden_size": shapes["weight_hh"][1]}


def _attention(module: Any, shapes: Shapes) -> dict[str, Any]:
    packed = "in_proj_weight" in shapes
    width = shapes["in_proj_weight"][1] if packed else shapes["q_proj_weight"][0]
    key, value = (
        (width, width) if packed else (shapes["k_proj_weight"][1], shapes["v_proj_weight"][1])
    )
    heads = width // module.num_heads
    return {"embed_dim": width, "head_dim": heads, "kdim": key, "vdim": value}


Reading = Callable[[Any, Shapes], dict[str, Any]]

_SIZES: tuple[tuple[type[nn.Module], str, Reading], ...] = (
    (nn.Linear, "weight", _linear),
    (nn.Bilinear, "weight", _bilinear),
    (nn.Embedding, "weight", _embedding),
    (nn.EmbeddingBag, "weight", _embedding),
    (_NormBase, "weight", lambda module, shapes: {"num_features": shapes["weight"][0]}),
    (_NormBase, "running_mean", lambda module, shapes: {"num_features": shapes["running_mean"][0]}),
    (nn.LayerNorm, "weight", _normalised_shape),
    (nn.RMSNorm, "weight", _normalised_shape),
    (nn.GroupNorm, "weight", _group_norm),
    (nn.RNNBase, "weight_ih_l0", _recurrent),
    (nn.RNNCellBase, "weight_ih", _recurrent_cell),
    (nn.MultiheadAttention, "in_proj_weight", _attention),
    (nn.MultiheadAttention, "q_proj_weight", _attention),
    (nn.PReLU, "weight", lambda module, shapes: {"num_parameters": shapes["weight"][0]}),
)
"""For each kind of module the tensor that it must have, and what follows from the shapes."""
