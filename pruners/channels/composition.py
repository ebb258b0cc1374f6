"""What each channel is made of: the filters that compute it, the norms that scale it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from harness.prunable import LAYERS
from pruners.channels.groups import ChannelGraph, ChannelGroup, Member
from pruners.normalisation import NORMALISATIONS

Part = TypeVar("Part")


def filters(model: nn.Module, graph: ChannelGraph) -> dict[str, list[Tensor]]:
    """Return the weights that compute the channels: kernels, rows, columns of embeddings.

    Returns:
        For each group that has any, a tensor (channels, weights) of each layer that computes it.
    """
    return _of_groups(graph, lambda group: _filters(model, group))


def norms(model: nn.Module, graph: ChannelGraph) -> dict[str, list[tuple[nn.Module, Member]]]:
    """Return the normalisation layers that scale the channels.

    Returns:
        For each group that has any, the layers, each with the member that its scale is.
    """
    return _of_groups(graph, lambda group: _norms(model, group))


def of_channels(tensor: Tensor, member: Member) -> Tensor:
    """Return the entries of a tensor that belong to each channel (channels, entries)."""
    return tensor.movedim(member.dim, 0)[member.index].flatten(1)


def _of_groups(
    graph: ChannelGraph, parts: Callable[[ChannelGroup], Iterator[Part]]
) -> dict[str, list[Part]]:
    found = {group.name: list(parts(group)) for group in graph.groups}
    return {name: own for name, own in found.items() if own}


def _filters(model: nn.Module, group: ChannelGroup) -> Iterator[Tensor]:
    for member in group.members:
        layer, name = _holder(model, member)
        is_weight = isinstance(layer, LAYERS) and name.startswith("weight")
        if is_weight and member.dim == _output_axis(layer):
            yield of_channels(layer.get_parameter(name), member)


def _norms(model: nn.Module, group: ChannelGroup) -> Iterator[tuple[nn.Module, Member]]:
    for member in group.members:
        layer, name = _holder(model, member)
        if isinstance(layer, NORMALISATIONS) and name == "weight":
            yield layer, member


def _holder(model: nn.Module, member: Member) -> tuple[nn.Module, str]:
    """Return the module that holds a member's tensor, and the tensor's name there."""
    module, _, name = member.tensor.rpartition(".")
    return model.get_submodule(module), name


def _output_axis(layer: nn.Module) -> int:
    """Return which axis of a layer's weight counts its outputs."""
    return 1 if isinstance(layer, (_ConvTransposeNd, nn.Embedding)) else 0
