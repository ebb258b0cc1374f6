"""Removing channels from parameters, buffers and optimizer state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from harness.errors import RequestError, nearest
from pruners.channels.attributes import (
    PartlyKept,
    kept_sizes_after,
    own_tensors,
    positions_kept,
    put_numbers,
    size_attributes,
    smaller_kept_sizes,
)
from pruners.channels.groups import ChannelGraph, ChannelGroup, Keep, Member, Place, Site
from pruners.channels.state import named_tensors, put

Cuts = dict[str, dict[int, Tensor]]
"""Which positions stay (a boolean for each), by the name of the tensor and the axis."""


def shrink(
    model: nn.Module, graph: ChannelGraph, keep: Keep, optimiser: Optimizer | None = None
) -> ChannelGraph:
    """Remove channels from a model, which becomes smaller in place.

    Training continues as if the channels had been held at zero: gradients and optimizer state are
    cut too. Ties, ``requires_grad``, modes and the size attributes of modules stay correct.
    Parameters become new objects, which are passed to the optimizer; any other code that holds the
    old ones has to look them up again. Hooks on parameters are lost.

    On an error the model and the optimizer are unchanged.

    Args:
        model: the traced model.
        graph: its groups.
        keep: the channels to keep, by group, in any order.
        optimiser: the optimizer of this model, if there is one. Every state tensor in the shape of
            a parameter is cut like the parameter.

    Returns:
        The graph of the smaller model.

    Raises:
        RequestError: a group is unknown or would vanish, a channel is not an integer, out of range
            or named twice, the graph belongs to another model, or optimizer state has an unknown
            form.
    """
    with torch.inference_mode(False):  # inference tensors cannot be trained
        cuts = remove(model, graph, keep, optimiser)
    return _smaller_graph(graph, _checked(graph, keep), cuts)


def remove(
    model: nn.Module, graph: ChannelGraph, keep: Keep, optimiser: Optimizer | None = None
) -> Cuts:
    """Remove channels as `shrink` does, and return which positions stay."""
    tensors = named_tensors(model)
    cuts = kept_positions(model, graph, keep)
    replacements = {id(tensors[name]): _cut(tensors[name], dims) for name, dims in cuts.items()}
    states = _cut_states(optimiser, cuts, tensors)
    sizes = _new_sizes(model, tensors, cuts, replacements)
    _check_projections(model, sizes)
    numbers = kept_sizes_after(model, graph, _checked(graph, keep))

    put(model, replacements)
    for module, attributes in sizes:
        module.__dict__.update(attributes)
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()
    put_numbers(model, numbers)
    if optimiser is not None:
        _hand_over(optimiser, replacements, states)
    return cuts


def _checked(graph: ChannelGraph, keep: Keep) -> dict[str, Tensor]:
    """Return which channels stay, a boolean for each channel of each group."""
    groups = {group.name: group for group in graph.groups}
    kept = {name: torch.ones(group.size, dtype=torch.bool) for name, group in groups.items()}
    for name, channels in keep.items():
        if name not in groups:
            raise RequestError(f"keep: no group {name!r}{nearest(name, groups)}")
        size, tensor = groups[name].size, groups[name].members[0].tensor
        numbers = torch.as_tensor(channels).cpu()
        if not numbers.numel():
            wrong = "would vanish; keep at least one channel"
        elif numbers.dtype is torch.bool or numbers.is_floating_point():
            wrong = f"needs the numbers of channels, and not {numbers.dtype}"
        elif numbers.min() < 0 or numbers.max() >= size:
            wrong = f"has only the channels 0 to {size - 1}"
        elif len(numbers.unique()) < len(numbers):
            wrong = "names a channel twice"
        else:
            kept[name] = torch.zeros_like(kept[name]).index_fill(0, numbers.long(), True)
            continue
        raise RequestError(f"keep: group {name!r} ({tensor}) {wrong}")
    return kept


def kept_positions(model: nn.Module, graph: ChannelGraph, keep: Keep) -> Cuts:
    """Return which positions stay on which axes of each tensor that is cut.

    Raises:
        RequestError: see `shrink`.
    """
    kept = _checked(graph, keep)
    tensors = named_tensors(model)
    cuts: Cuts = {}
    for group in graph.groups:
        for member in group.members if not kept[group.name].all() else ():
            size = _axis_size(member, tensors)
            dims = cuts.setdefault(member.tensor, {})
            stays = dims.setdefault(member.dim, torch.ones(size, dtype=torch.bool))
            stays[member.index[~kept[group.name]]] = False
    return cuts


def partly_kept(model: nn.Module, graph: ChannelGraph, keep: Keep) -> dict[Place, PartlyKept]:
    """Return the numbers kept by modules that count removed channels.

    Raises:
        RequestError: see `shrink`.
    """
    kept = _checked(graph, keep)
    kept_sizes_after(model, graph, kept)
    stays = {(size.module, size.path): positions_kept(size, kept) for size in graph.sizes_kept}
    return {place: PartlyKept(own) for place, own in stays.items() if not own.all()}


def _axis_size(member: Member, tensors: Mapping[str, Tensor]) -> int:
    tensor = tensors.get(member.tensor)
    if tensor is None or tensor.dim() <= member.dim:
        raise RequestError(f"the graph is another model's: this one has no {member.tensor!r}")
    size = tensor.shape[member.dim]
    if int(member.index.max()) >= size:
        raise RequestError(
            f"the graph is another model's: axis {member.dim} of {member.tensor!r} has only {size} "
            "positions; after a removal, use the graph that shrink returned"
        )
    return size


def _cut(tensor: Tensor, dims: Mapping[int, Tensor]) -> Tensor:
    """Return a smaller copy of a tensor; a parameter stays one and keeps its gradient."""
    cut = tensor.detach()
    for dim, stays in dims.items():
        cut = cut.index_select(dim, stays.nonzero().squeeze(1).to(tensor.device))
    if not isinstance(tensor, nn.Parameter):
        return cut
    parameter = nn.Parameter(cut, requires_grad=tensor.requires_grad)
    if tensor.grad is not None:
        parameter.grad = _cut(tensor.grad, dims)
    return parameter


# The optimizer


def _cut_states(
    optimiser: Optimizer | None, cuts: Cuts, tensors: Mapping[str, Tensor]
) -> dict[int, dict[str, Any]]:
    """Return the smaller states of the cut parameters, by the ids of the old parameters."""
    if optimiser is None:
        return {}
    return {
        id(tensors[name]): {
            key: _cut_state(name, key, value, tensors[name], dims)
            for key, value in optimiser.state[tensors[name]].items()
        }
        for name, dims in cuts.items()
        if tensors[name] in optimiser.state
    }


def _cut_state(name: str, key: str, value: Any, tensor: Tensor, dims: Mapping[int, Tensor]) -> Any:
    if not isinstance(value, Tensor) or value.dim() == 0:
        return value
    if value.shape != tensor.shape:
        raise RequestError(
            f"the optimizer's {key!r} for {name!r} has shape {tuple(value.shape)}, not that of "
            "the parameter: it cannot be cut; use another optimizer"
        )
    return _cut(value, dims)


def _hand_over(
    optimiser: Optimizer, replacements: Mapping[int, Tensor], states: Mapping[int, dict[str, Any]]
) -> None:
    for group in optimiser.param_groups:
        for position, old in enumerate(group["params"]):
            if id(old) in replacements:
                group["params"][position] = replacements[id(old)]
                if id(old) in states:
                    del optimiser.state[old]
                    optimiser.state[replacements[id(old)]] = states[id(old)]


def _new_sizes(
    model: nn.Module, tensors: Mapping[str, Tensor], cuts: Cuts, replacements: Mapping[int, Tensor]
) -> list[tuple[nn.Module, dict[str, Any]]]:
    """Return the size attributes of each module for its new tensors."""
    cut_of = {id(tensors[name]): dims for name, dims in cuts.items()}

    def sizes(module: nn.Module) -> dict[str, Any]:
        held = own_tensors(module)
        shapes = {name: replacements.get(id(tensor), tensor).shape for name, tensor in held.items()}
        kept_outputs = cut_of.get(id(held.get("weight")), {}).get(0)
        return size_attributes(module, shapes, kept_outputs)

    return [
        (module, sizes(module))
        for module in model.modules()
        if any(id(tensor) in replacements for tensor in own_tensors(module).values())
    ]


def _check_projections(model: nn.Module, sizes: Sequence[tuple[nn.Module, dict[str, Any]]]) -> None:
    """Refuse an LSTM projection that is not narrower than the cells, which torch does not allow."""
    names = {id(module): name for name, module in model.named_modules()}
    for module, own in sizes:
        hidden, projected = own.get("hidden_size", 0), own.get("proj_size", 0)
        if 0 < hidden <= projected:
            raise RequestError(
                f"keep: {names[id(module)] or 'the model'!r} would project {hidden} cells to "
                f"{projected} channels, and torch requires fewer channels than cells: keep more "
                "cells, or fewer channels"
            )


# The graph of the smaller model


def _smaller_graph(graph: ChannelGraph, kept: Mapping[str, Tensor], cuts: Cuts) -> ChannelGraph:
    positions: dict[tuple[str, int], Tensor] = {}
    for group in graph.groups:
        for site in (*group.sites, *group.sites_before):
            stays = _looked_up(kept[group.name], site.channel, outside=True)
            key = (site.module, site.axis)
            positions[key] = positions.get(key, torch.tensor(True)) & stays
    groups = (_smaller_group(group, kept[group.name], cuts, positions) for group in graph.groups)
    sizes = smaller_kept_sizes(graph, kept)
    return ChannelGraph(tuple(groups), graph.pinned, sizes, graph.whole)


def _smaller_group(
    group: ChannelGroup,
    kept: Tensor,
    cuts: Cuts,
    positions: Mapping[tuple[str, int], Tensor],
) -> ChannelGroup:
    def member(old: Member) -> Member:
        index = old.index[kept]
        stays = cuts.get(old.tensor, {}).get(old.dim)
        if stays is None:
            return Member(old.tensor, old.dim, index)
        # Another group may have taken as many positions from each channel.
        left = index[stays[index]].view(len(index), -1)
        return Member(old.tensor, old.dim, _renumbered(stays)[left])

    def site(old: Site) -> Site:
        channel = old.channel[positions[old.module, old.axis]]
        return Site(old.module, old.axis, _looked_up(_renumbered(kept), channel, outside=-1))

    return ChannelGroup(
        group.name,
        int(kept.sum()),
        tuple(map(member, group.members)),
        tuple(map(site, group.sites)),
        tuple(map(site, group.sites_before)),
        group.kind,
    )


def _renumbered(stays: Tensor) -> Tensor:
    """Return the new number of each position that stays."""
    return stays.cumsum(0) - 1


def _looked_up(table: Tensor, channel: Tensor, *, outside: bool | int) -> Tensor:
    """Return the entry of a table for each channel, and ``outside`` for -1."""
    return torch.where(channel >= 0, table[channel], outside)
