"""What is tried on each transformer: several cuts by this project, and one by its peer.

Both are compared with the dense network whose other entries are zero
(`benchmarks.zoo.kept_only`), in double precision.
"""

from __future__ import annotations

import copy
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam

from benchmarks.zoo.kept_only import Cut, InDouble, KeptOnly, entries_left, masked_copy
from benchmarks.zoo.trial import (
    Network,
    Result,
    built,
    cuttable_share,
    failed,
    one_line,
    permuting_changes,
    train,
    what_stops,
)
from pruners.channels import ChannelGraph, shrink, trace_channels
from pruners.channels.rules.registry import tensors_in

TOLERANCE = 1e-10
"""Between a cut network and the reference, relative to the larger of one and the largest output."""

SHARES = (0.0, 0.2, 0.5)
"""The shares of each group that are kept; at least one channel."""

OUTPUT = "it reaches the model's output"
"""Why the channels of the last layers stay, which the peer has to be told."""


def cut_in_several_ways(network: Network) -> Result:
    """Return what comes of cutting a network with this project."""
    model, inputs, failure = built(network)
    if model is None:
        return failure
    seen = Result("right", parameters=_count(model))
    began = time.perf_counter()
    try:
        with InDouble():
            graph = trace_channels(model, inputs, forward=network.forward)
    except Exception as error:  # a crash in a rule is a refusal, too
        return failed(seen, "refused", error)
    seen = replace(
        seen,
        seconds=time.perf_counter() - began,
        groups=len(graph.groups),
        cuttable=cuttable_share(model, graph),
        stops=what_stops(model, graph),
        kinds=_of_kinds(graph),
        whole=dict(graph.whole),
    )
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
    """Return the result of a network, with what comes of keeping a share of its channels."""
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
        left=_count(smaller) / _count(model),
        difference=max(seen.difference, error),
    )


def kept(size: int, share: float) -> int:
    """Return how many channels of a group are kept."""
    return max(1, math.floor(share * size))


def cut_by_peer(network: Network) -> Result:
    """Return what comes of cutting a network in half with torch-pruning.

    It is told which layers compute the outputs, as far as this project finds them.
    """
    model, inputs, failure = built(network)
    if model is None:
        return failure
    seen = Result("right", parameters=_count(model))
    with InDouble():
        graph = trace_channels(model, inputs, forward=network.forward)
    outputs = {name.rpartition(".")[0] for name, why in graph.pinned.items() if OUTPUT in why}

    def cut(model: nn.Module) -> None:
        _halved(model, inputs, network.forward, outputs)

    try:
        smaller, error = _distance(network, model, inputs, cut)
    except Exception as problem:  # whatever the peer or the network says
        return replace(seen, outcome="refused", reason=one_line(problem))
    left = _count(smaller) / _count(model)
    if left == 1:
        return replace(seen, outcome="refused", reason="nothing cut")
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
    outputs: set[str],
) -> None:
    """Cut a network in place with torch-pruning."""
    import torch_pruning

    torch.manual_seed(0)
    modules = dict(model.named_modules())
    pruner = torch_pruning.pruner.BasePruner(
        model,
        list(inputs),
        importance=torch_pruning.importance.RandomImportance(),
        pruning_ratio=0.5,
        ignored_layers=[modules[name] for name in sorted(outputs) if name in modules],
        forward_fn=lambda model, inputs: tensors_in(forward(model, *inputs)),
    )
    pruner.step()


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


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
