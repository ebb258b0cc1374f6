"""What is tried on each transformer: several cuts by this project, and one by torch-pruning.

Both are compared with the dense network whose other entries are zero
(`benchmarks.zoo.kept_only`), in double precision.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam

from benchmarks.zoo.kept_only import Cut, InDouble, KeptOnly, entries_left, masked_copy
from benchmarks.zoo.trial import (
    NOTHING_CUT,
    Network,
    Result,
    built,
    count,
    failed,
    one_line,
    permuting_changes,
    traced,
    train,
)
from pruners.channels import ChannelGraph, shrink, trace_channels
from pruners.channels.composition import pinned_layers
from pruners.channels.kinds import OUTPUT
from pruners.channels.rules.registry import tensors_in

TOLERANCE = 1e-10
"""The largest difference between a cut network and the reference, relative to the larger of one and
the largest output."""

SHARES = (0.0, 0.2, 0.5)
"""The shares of each group that are kept; at least one channel is."""


def cut_in_several_ways(network: Network) -> Result:
    """Return the result of cutting a network with this project."""
    model, inputs, failure = built(network)
    if model is None:
        return failure
    with InDouble():
        seen, graph = traced(network, model, inputs)
    if graph is None:
        return seen
    seen = replace(seen, kinds=_of_kinds(graph), whole=dict(graph.whole))
    for share in SHARES:
        try:
            seen = _with_cut(seen, network, model, inputs, graph, share)
        except Exception as error:  # whatever the cut network stumbles over
            return failed(seen, "wrong", error)
    return seen


def _with_cut(
    seen: Result,
    network: Network,
    model: nn.Module,
    inputs: Sequence[Any],
    graph: ChannelGraph,
    share: float,
) -> Result:
    """Return the result of a network, with that of keeping a share of its channels."""
    generator = torch.Generator().manual_seed(0)
    keep = {
        group.name: torch.randperm(group.size, generator=generator)[: kept(group.size, share)]
        for group in graph.groups
    }

    def cut(model: nn.Module) -> None:
        shrink(model, graph, keep)

    smaller, error = _distance(network, model, inputs, cut)
    outcome, note = seen.outcome, ""
    if not error <= TOLERANCE:
        with InDouble():
            if permuting_changes(network, model, inputs, graph):
                return replace(seen, outcome="wrong", reason=f"differs by {error:.2g}")
        outcome = "counts channels"
    if seen.outcome != "wrong":
        with InDouble():
            optimiser = Adam(smaller.parameters(), lr=1e-4)
            note = train(network, smaller, inputs, optimiser, model)
    return replace(
        seen,
        outcome=outcome,
        reason=seen.reason or note,
        left=count(smaller) / count(model),
        difference=max(seen.difference, error),
    )


def kept(size: int, share: float) -> int:
    """Return how many channels of a group are kept."""
    return max(1, math.floor(share * size))


def cut_by_peer(network: Network) -> Result:
    """Return the result of cutting a network in half with torch-pruning.

    It is told which layers compute the outputs, which this project finds by itself.
    """
    model, inputs, failure = built(network)
    if model is None:
        return failure
    seen = Result("right", parameters=count(model))
    with InDouble():
        graph = trace_channels(model, inputs, forward=network.forward)
    outputs = _output_layers(model, graph)

    def cut(model: nn.Module) -> None:
        _halved(model, inputs, network.forward, outputs)

    try:
        smaller, error = _distance(network, model, inputs, cut)
    except Exception as problem:  # whatever the peer or the network says
        return replace(seen, outcome="refused", reason=one_line(problem))
    left = count(smaller) / count(model)
    if left == 1:
        return replace(seen, outcome="refused", reason=NOTHING_CUT)
    seen = replace(seen, left=left, difference=error)
    try:
        with InDouble():
            train(network, smaller, inputs, Adam(smaller.parameters(), lr=1e-4), model)
    except Exception as problem:  # whatever the network says
        return replace(seen, outcome="refused", reason=one_line(problem))
    return seen if error <= TOLERANCE else replace(seen, outcome="wrong")


def _halved(
    model: nn.Module,
    inputs: Sequence[Any],
    forward: Callable[..., Any],
    outputs: Sequence[str],
) -> None:
    """Cut a network in place with torch-pruning.

    As in its own examples, it is given the layers of attention with their numbers of heads, and
    the attributes of the modules are set by hand afterwards.
    """
    import torch_pruning

    torch.manual_seed(0)
    projections = [*_projections(model)]
    pruner = torch_pruning.pruner.BasePruner(
        model,
        list(inputs),
        importance=torch_pruning.importance.RandomImportance(),
        pruning_ratio=0.5,
        ignored_layers=[model.get_submodule(name) for name in outputs],
        num_heads={layer: heads for _, layer, _, heads in projections},
        forward_fn=lambda model, inputs: tensors_in(forward(model, *inputs)),
    )
    pruner.step()
    for module, layer, parts, _ in projections:
        heads, width = pruner.num_heads[layer], layer.out_features // parts
        sizes = dict.fromkeys(_NUMBERS_OF_HEADS, heads) | dict.fromkeys(_WIDTHS, width // heads)
        for name, size in {**sizes, "all_head_size": width, "attn_dim": width}.items():
            if name in vars(module):
                setattr(module, name, size)


def _output_layers(model: nn.Module, graph: ChannelGraph) -> list[str]:
    """Return the names of layers that compute outputs, also of those tied to a vocabulary."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    pinned = {layer for layer, why in pinned_layers(model, graph).items() if OUTPUT in why}
    found = []
    for name, module in model.named_modules():
        own = names.get(id(getattr(module, "weight", None)), "")
        is_tied = isinstance(module, nn.Linear) and not own.startswith(f"{name}.")
        if name in pinned or (is_tied and f"{own}:0" in graph.pinned):
            found.append(name)
    return found


_NUMBERS_OF_HEADS = ("num_heads", "num_attention_heads")
_WIDTHS = ("head_dim", "attention_head_size")
_PROJECTIONS = {"qkv": 3, "v_proj": 1, "k_proj": 1, "q_proj": 1, "value": 1, "key": 1, "query": 1}
"""The layers before attention by their usual names, and how many matrices each holds."""


def _projections(model: nn.Module) -> Iterator[tuple[nn.Module, nn.Linear, int, int]]:
    """Yield the layers before attention: module, layer, number of matrices, number of heads."""
    for module in model.modules():
        width = next((vars(module)[name] for name in _WIDTHS if name in vars(module)), 0)
        for name, parts in _PROJECTIONS.items() if isinstance(width, int) and width else ():
            layer = getattr(module, name, None)
            if isinstance(layer, nn.Linear):
                yield module, layer, parts, layer.out_features // parts // width


def _distance(
    network: Network, model: nn.Module, inputs: Sequence[Any], cut: Cut
) -> tuple[nn.Module, float]:
    """Return the cut network and how far its outputs are from those of the reference."""
    reference = masked_copy(model, entries_left(model, cut))
    smaller = copy.deepcopy(model)
    cut(smaller)
    smaller.eval()
    with torch.no_grad(), InDouble():
        found = tensors_in(network.forward(smaller, *inputs))
        with KeptOnly():
            expected = tensors_in(network.forward(reference.eval(), *inputs))
    return smaller, max(_difference(*pair) for pair in zip(expected, found, strict=True))


def _difference(expected: Tensor, found: Tensor) -> float:
    if expected.shape != found.shape:
        raise ValueError(f"an output of shape {tuple(found.shape)}, not {tuple(expected.shape)}")
    if not expected.numel():
        return 0.0
    return float((expected - found).abs().max() / expected.abs().max().clamp(min=1))


def _of_kinds(graph: ChannelGraph) -> dict[str, int]:
    """Return how many channels of each kind can be removed."""
    found = Counter[str]()
    for group in graph.groups:
        if group.size > 1:
            found[group.kind] += group.size
    return dict(found)
