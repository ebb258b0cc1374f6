"""What a channel consists of: its filters and normalisation scales, and their cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvTransposeNd

from harness.costs.operations import operations_by_weight
from harness.errors import Skip
from harness.prunable import LAYERS, prunable_weights
from pruners.channels.groups import ChannelGraph, ChannelGroup, Member
from pruners.channels.kinds import HEADS

Part = TypeVar("Part")
Structure = tuple[tuple[str, str, int], ...]
"""The axes of a group: for each the kind of the layer, the name of its tensor, and the axis. Heads
have one more entry."""
NORMALISATIONS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def filters(model: nn.Module, graph: ChannelGraph) -> dict[str, list[Tensor]]:
    """Return the weights that compute the channels: kernels, rows, or columns of embeddings.

    Returns:
        For each group with such weights, a tensor (channels, weights) per layer that computes it.
    """
    return _of_groups(graph, lambda group: _filters(model, group))


def norms(model: nn.Module, graph: ChannelGraph) -> dict[str, list[tuple[nn.Module, Member]]]:
    """Return the normalisation layers that scale the channels.

    Returns:
        For each group with such layers, each layer and the group's member that is its scale.
    """
    return _of_groups(graph, lambda group: _norms(model, group))


def norm_scales(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the learned scales of all normalisation layers by name.

    Raises:
        Skip: there are none.
    """
    scales = {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if isinstance(module, NORMALISATIONS) and module.weight is not None
    }
    if not scales:
        raise Skip("the network has no normalisation layers with scales that could be its gates")
    return scales


def coupled_norms(model: nn.Module, graph: ChannelGraph) -> dict[str, Tensor]:
    """Return the squared L2 norms of all that is cut with a channel, for each coupled weight.

    Coupled are the weights that compute the channels, the weights that read them, and the scales
    between. A weight that does both, such as that of a recurrence, occurs twice. Biases and shifts
    are left out.

    Returns:
        For each group a tensor (weights, channels), through which the model can be differentiated.
    """
    parameters = dict(model.named_parameters())

    def norms_of(group: ChannelGroup) -> Iterator[Tensor]:
        for member in group.members:
            _, name = _holder(model, member)
            if member.tensor in parameters and not name.startswith("bias"):
                squares = parameters[member.tensor].square()
                others = [dim for dim in range(squares.dim()) if dim != member.dim]
                yield (squares.sum(others) if others else squares)[member.index].sum(1)

    return {name: torch.stack(own) for name, own in _of_groups(graph, norms_of).items()}


def gate_gradients(model: nn.Module, graph: ChannelGraph) -> dict[str, Tensor]:
    """Return the derivative by a gate on each channel, from the gradients of the parameters.

    No gate is inserted: the derivative by a factor behind a layer is the sum of ``theta dL/dtheta``
    over the parameters that the factor would scale. Those of a normalisation are scale and shift.
    It is exact for all layers but recurrent ones: for those, it is the derivative by a factor of
    the gates' weights. Coupled channels share a gate, so theirs are added.

    Returns:
        For each group with such parameters a tensor (channels,).
    """
    gradients = _times_gradients(model)

    def gradients_of(group: ChannelGroup) -> Iterator[Tensor]:
        gated = [model.get_submodule(site.module) for site in group.sites]
        for member in group.members:
            layer, name = _holder(model, member)
            is_output = member.dim == (_output_axis(layer) if name.startswith("weight") else 0)
            if member.tensor in gradients and layer in gated and is_output:
                yield of_channels(gradients[member.tensor], member).sum(1)

    found = _of_groups(graph, gradients_of)
    return {name: torch.stack(own).sum(0) for name, own in found.items()}


def _times_gradients(model: nn.Module) -> dict[str, Tensor]:
    """Return ``theta dL/dtheta`` for the parameters of layers and normalisations."""
    return {
        f"{prefix}.{name}" if prefix else name: theta.detach() * theta.grad
        for prefix, module in model.named_modules()
        if isinstance(module, (*LAYERS, *NORMALISATIONS))
        for name, theta in module.named_parameters(recurse=False)
        if theta.grad is not None
    }


def structures(model: nn.Module, graph: ChannelGraph) -> dict[str, Structure]:
    """Return for each group which axes of which kinds of layers are cut, whatever their sizes.

    Groups of one structure are isomorphic: their channels are computed, normalised and read by as
    many layers of the same kinds.
    """

    def structure(group: ChannelGroup) -> Structure:
        holders = [(*_holder(model, member), member.dim) for member in group.members]
        axes = sorted((type(layer).__name__, name, dim) for layer, name, dim in holders)
        # The features within heads are cut from the same axes as the heads.
        return (*axes, (HEADS, "", 0)) if group.kind == HEADS else tuple(axes)

    return {group.name: structure(group) for group in graph.groups}


def pinned_layers(model: nn.Module, graph: ChannelGraph) -> dict[str, str]:
    """Return why layers have outputs that cannot be removed, by the name of the layer."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    reasons = {}
    for weight in prunable_weights(model).values():
        layer, _, _ = names[id(weight)].rpartition(".")
        axis = _output_axis(model.get_submodule(layer))
        if (why := graph.pinned.get(f"{names[id(weight)]}:{axis}")) is not None:
            reasons[layer] = why
    return reasons


def of_channels(tensor: Tensor, member: Member) -> Tensor:
    """Return the entries of a tensor that belong to each channel, as (channels, entries)."""
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
    """Return the module that holds a member's tensor, and the name of the tensor in it."""
    module, _, name = member.tensor.rpartition(".")
    return model.get_submodule(module), name


def _output_axis(layer: nn.Module) -> int:
    """Return which axis of a layer's weight counts its outputs."""
    if isinstance(layer, _ConvTransposeNd) and layer.groups == layer.in_channels > 1:
        return 0  # depthwise: each input computes outputs of its own
    return 1 if isinstance(layer, (_ConvTransposeNd, nn.Embedding)) else 0


# Costs


@dataclass(frozen=True)
class ChannelCosts:
    """What removing one channel of a group saves while all others remain."""

    parameters: int
    macs: int
    """Multiply-accumulates of the prunable layers; for flattened or grouped layers, their mean."""


def channel_costs(
    model: nn.Module, graph: ChannelGraph, run: Callable[[], object]
) -> dict[str, ChannelCosts]:
    """Return the cost of one channel of each group; all channels of a group cost the same.

    Args:
        model: the traced model, in evaluation mode.
        graph: its groups.
        run: calls the model, usually on one sample.
    """
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    weights = prunable_weights(model)
    operations = operations_by_weight(model, run)

    def costs(group: ChannelGroup) -> ChannelCosts:
        lost = _lost(model, group)
        macs = sum(operations[name] * lost.get(name, 0) / sizes[name] for name in weights)
        return ChannelCosts(sum(lost.values()), round(macs))

    return {group.name: costs(group) for group in graph.groups}


def _lost(model: nn.Module, group: ChannelGroup) -> dict[str, int]:
    """Return how many entries of each parameter go with one channel."""
    parameters = dict(model.named_parameters())
    shapes = {
        m.tensor: list(parameters[m.tensor].shape) for m in group.members if m.tensor in parameters
    }
    for member in group.members:
        if member.tensor in shapes:
            shapes[member.tensor][member.dim] -= member.index.shape[1]
    return {name: parameters[name].numel() - math.prod(shape) for name, shape in shapes.items()}
