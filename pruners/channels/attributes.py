"""Attributes of modules that are sizes: of torch's own layers, and numbers that others keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import is_parametrized

from harness.errors import RequestError
from pruners.channels.groups import ChannelGraph, KeptSize, Place
from pruners.channels.sizes import Width

Shapes = Mapping[str, torch.Size]
"""The shapes of a module's own parameters and buffers, by their names in it."""


def size_attributes(
    module: nn.Module, shapes: Shapes, kept_outputs: Tensor | None = None
) -> dict[str, Any]:
    """Return the size attributes of a module for tensors of these shapes.

    Args:
        module: any module. The result is empty if its kind is unknown or its weights are computed.
        shapes: the shapes of its tensors.
        kept_outputs: for a convolution that is cut, which positions of the first axis of its
            weight stay (a boolean for each).
    """
    if isinstance(module, _ConvNd):
        return _convolution(module, shapes, kept_outputs) if "weight" in shapes else {}
    for kind, tensor, read in _SIZES:
        if isinstance(module, kind) and tensor in shapes:
            return read(module, shapes)
    return {}


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's own parameters and buffers, by their names in it.

    If the weight is computed, as by weight or spectral normalisation, the tensor of the same shape
    that it is computed from takes its place.
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
    """Return the shape of a layer's weight according to its attributes."""
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
    if kept is not None:  # a depthwise group goes with its channel; other groups keep some channels
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
"""For each kind of module a tensor that it must have, and the sizes that follow from shapes."""


# Numbers that modules keep as sizes, after a removal


def positions_kept(size: KeptSize, kept: Mapping[str, Tensor]) -> Tensor:
    """Return which positions of the axis of a number stay (a boolean for each).

    Args:
        size: the number.
        kept: which channels of each group stay (a boolean for each).
    """
    stays = torch.ones(size.size, dtype=torch.bool)
    for group, channel in size.channels.items():
        stays &= torch.where(channel >= 0, kept[group][channel], True)
    return stays


def kept_sizes_after(
    model: nn.Module, graph: ChannelGraph, kept: Mapping[str, Tensor]
) -> dict[Place, int]:
    """Return the values of the numbers after channels are removed.

    Raises:
        RequestError: the numbers of the model differ from those of the graph.
    """
    modules = dict(model.named_modules())
    numbers: dict[Place, int] = {}
    for size in graph.sizes_kept:
        own: Any = vars(modules[size.module]) if size.module in modules else {}
        try:
            for key in size.path:
                own = own[key]
        except (KeyError, IndexError, TypeError):
            own = None
        if own != size.size:
            name = f"{size.module}.{size.path[0]}".lstrip(".")
            raise RequestError(
                f"the graph is another model's: {name!r} is {own} here and {size.size} there"
            )
        numbers[size.module, size.path] = int(positions_kept(size, kept).sum())
    return numbers


def put_numbers(model: nn.Module, numbers: Mapping[Place, int]) -> None:
    """Set the numbers that modules keep. Lists that contain them are replaced, not written to."""
    modules = dict(model.named_modules())
    for (name, path), number in numbers.items():
        attributes = modules[name].__dict__
        attribute = str(path[0])
        attributes[attribute] = _with(attributes[attribute], path[1:], number)


def _with(value: Any, path: tuple[str | int, ...], number: int) -> Any:
    """Return a copy of nested containers with one number changed."""
    if not path:
        return number
    if isinstance(value, dict):
        return {**value, path[0]: _with(value[path[0]], path[1:], number)}
    items = list(value)
    items[int(path[0])] = _with(items[int(path[0])], path[1:], number)
    return type(value)(items)


@contextmanager
def numbers_replaced(model: nn.Module, numbers: Mapping[Place, int]) -> Iterator[None]:
    """Set the numbers that modules keep, within the context."""
    modules = dict(model.named_modules())
    before = [(modules[name].__dict__, str(path[0])) for name, path in numbers]
    originals = [(attributes, name, attributes[name]) for attributes, name in before]
    put_numbers(model, numbers)
    try:
        yield
    finally:
        for attributes, name, value in originals:
            attributes[name] = value


class PartlyKept(int):
    """The size of an axis with some positions held at zero.

    Attributes:
        kept: the other positions.
    """

    kept: Tensor

    def __new__(cls, stays: Tensor) -> PartlyKept:
        """Return the size.

        Args:
            stays: whether each position is kept.
        """
        number = super().__new__(cls, len(stays))
        number.kept = stays.nonzero().squeeze(1)
        return number


def smaller_kept_sizes(graph: ChannelGraph, kept: Mapping[str, Tensor]) -> tuple[KeptSize, ...]:
    """Return the numbers for the graph of the smaller model."""

    def smaller(size: KeptSize) -> KeptSize:
        stays = positions_kept(size, kept)
        channels = {
            group: torch.where(channel >= 0, kept[group].cumsum(0)[channel] - 1, -1)[stays]
            for group, channel in size.channels.items()
        }
        return KeptSize(size.module, size.path, int(stays.sum()), channels)

    return tuple(map(smaller, graph.sizes_kept))
