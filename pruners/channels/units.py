"""What to prune: whole channels, which are removed from the network while it trains."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import RequestError, Skip
from harness.prunable import copied, prunable_weights
from harness.registry import units
from harness.scoring import Scores
from harness.units import (
    Forward,
    Kept,
    Limit,
    Prospect,
    Scope,
    ScoreError,
    UnreachableBudget,
    UnreachableSparsity,
    isomorphic,
    require_shape,
)
from pruners.channels.composition import pinned_layers, structures
from pruners.channels.gating import Gates
from pruners.channels.groups import ChannelGraph, compose
from pruners.channels.shrinking import kept_positions, shrink
from pruners.channels.tracing import trace_channels

Block = list[tuple[str, int]]
"""Channels, each with the name of its group, that are removed together."""


@units("channels")
class Channels:
    """The coupled channels of a model; implements `harness.units.ClassifiedUnits`.

    Criteria score a gate ``c = 1`` on each channel, after normalisation. At least one channel of
    each group remains. To reach a target, the channels with the smallest scores are removed one by
    one until the sparsity of the network, as it would be cut, is not below the target, or until
    its cost is within the budget.

    Args:
        model: the model, which is traced once.
        forward: runs the model on one sample.

    Raises:
        RequestError: there is no ``forward``.
        Skip: no channel can be removed.
    """

    exact = False
    obeys: Collection[str] = ("macs", "params", "bytes", "latency")

    def __init__(self, model: nn.Module, forward: Forward | None = None) -> None:
        if forward is None:
            raise RequestError("channels are found by running the model: a forward is needed")
        self._graph = trace_channels(model, (), forward=forward)
        self._model = model
        self._dense_sizes = self._graph.sizes()
        self._dense_weights = sum(weight.numel() for weight in prunable_weights(model).values())
        self._kept = {name: torch.arange(size) for name, size in self._dense_sizes.items()}

    @property
    def graph(self) -> ChannelGraph:
        """The groups of the model in its current size."""
        return self._graph

    @property
    def model(self) -> nn.Module:
        """The model."""
        return self._model

    @contextmanager
    def as_variables(self, model: nn.Module) -> Iterator[dict[str, Tensor]]:
        """Put a gate on each channel and yield the gates, a vector for each group.

        Groups that cannot have gates (see `Gates`) get no scores and stay whole.

        Raises:
            Skip: no group can have gates.
        """
        with Gates(model, self._graph) as gates:
            if not gates.values:
                raise Skip("the network has no layers whose outputs could be gated")
            yield gates.values

    def alive(self) -> Kept:
        """Return masks that are all true: removed channels no longer exist."""
        sizes = self._graph.sizes()
        return {name: torch.ones(size, dtype=torch.bool) for name, size in sizes.items()}

    def masks(self) -> Kept:
        """Return nothing: removed channels are cut, not masked."""
        return {}

    def nodes(self) -> float:
        """Return the fraction of channels that is removed; coupled channels count once."""
        return 1 - sum(self._graph.sizes().values()) / sum(self._dense_sizes.values())

    def select(
        self,
        scores: Scores,
        target: float,
        scope: Scope,
        floor: float = 0.0,
        *,
        rounding: int = 1,
        limit: Limit | None = None,
    ) -> Kept:
        """Return the channels to keep: those that remain after as few removals as possible.

        Args:
            scores: a vector for each group; a group without scores stays whole.
            target: the fraction of the dense network's prunable weights that is removed: at least
                this, and as little more as possible.
            scope: the sparsity distribution; unless it returns None, which means one threshold
                for all, the same ratio of every group is removed, or of every class of groups if
                it is `harness.units.isomorphic`.
            floor: the minimum density, the share of each dense group that stays in any case; at
                least one channel stays.
            rounding: the number of channels that remain in each group is a multiple of it; smaller
                groups stay whole.
            limit: what the network may cost, in place of the target.

        Raises:
            UnreachableSparsity: the channels that stay in any case have too many weights.
            UnreachableBudget: the channels that stay in any case cost too much.
            ScoreError: scores of a group are not finite, or not one per channel.
        """
        scores = self._comparable(scores, scope, target)
        blocks = self._order(scores, floor, rounding)
        allowed = limit or self._limit_of_weights(target)

        def is_allowed(removed: int) -> bool:
            return allowed.allows(self.prospect(self._without(blocks[:removed])))

        if not is_allowed(len(blocks)):
            at_least = allowed.cost(self.prospect(self._without(blocks)))
            protects = len(blocks) < len(self._order(scores, 0.0, rounding))
            because = f"floor={floor:g} protects channels of every group" if protects else ""
            if limit is not None:
                raise UnreachableBudget(limit, at_least, because)
            raise UnreachableSparsity(target, 1 - at_least / self._dense_weights, because)
        return self._without(blocks[: bisect_left(range(len(blocks)), True, key=is_allowed)])

    def _limit_of_weights(self, sparsity: float) -> Limit:
        """Return the limit of prunable weights for a sparsity."""
        names = self._names()
        prunable = [names[id(weight)] for weight in prunable_weights(self._model).values()]

        def weights(prospect: Prospect) -> int:
            return sum(prospect.elements[name] for name in prunable)

        # Tolerate a tiny part of a weight, because a binary fraction is not exact.
        return Limit("params", weights, math.floor((1 - sparsity) * self._dense_weights + 1e-6))

    def _names(self) -> dict[int, str]:
        """Return the name of each parameter by its id; of a tied one the first name."""
        return {id(parameter): name for name, parameter in self._model.named_parameters()}

    def prospect(self, kept: Kept) -> Prospect:
        """Return the network as it would be cut down to some channels."""
        keep = {name: mask.nonzero().flatten() for name, mask in kept.items()}
        cuts = kept_positions(self._model, self._graph, keep)

        def remaining(name: str, shape: torch.Size) -> int:
            dims = cuts.get(name, {})
            return math.prod(
                int(dims[dim].sum()) if dim in dims else size for dim, size in enumerate(shape)
            )

        def cut() -> nn.Module:
            network = copied(self._model)
            shrink(network, self._graph, keep)
            return network

        return Prospect(
            elements={name: remaining(name, p.shape) for name, p in self._model.named_parameters()},
            shape={name: len(channels) for name, channels in keep.items()},
            network=cut,
            masks={},
            state=compose(self._kept, keep),
        )

    def smallest(self, scored: Collection[str], floor: float, rounding: int) -> Kept:
        """Return masks of the fewest channels that remain if these groups have scores."""
        kept = self.alive()
        for name in kept.keys() & scored:
            kept[name][self._fewest(name, floor, rounding) :] = False
        return kept

    def _fewest(self, name: str, floor: float, rounding: int) -> int:
        """Return how many channels of a group stay in any case."""
        stays = max(1, math.ceil(floor * self._dense_sizes[name]))
        return min(math.ceil(stays / rounding) * rounding, self._graph.sizes()[name])

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return for each group how many channels remain, and how many the dense network had."""
        return {name: (size, self._dense_sizes[name]) for name, size in self._graph.sizes().items()}

    def kinds(self) -> dict[str, str]:
        """Return for each group what its channels are to the network."""
        return self._graph.kinds()

    def why_whole(self, scored: Collection[str], floor: float, rounding: int) -> dict[str, str]:
        """Return for each group from which no channel is removed the reason for it."""

        def reason(name: str, size: int) -> str:
            if name not in scored:
                return "no score"
            if self._fewest(name, floor, rounding) == size:
                return "minimum of channels"
            return "scores above the threshold"

        sizes = self.sizes().items()
        return {name: reason(name, size) for name, (size, dense) in sizes if size == dense}

    def pinned(self) -> Mapping[str, str]:
        """Return why layers have outputs that cannot be removed, by the name of the layer."""
        return pinned_layers(self._model, self._graph)

    def shuffled(self, kept: Kept, generator: torch.Generator) -> Kept:
        """Return masks of as many channels in each group, chosen at random."""
        return {
            name: mask[torch.randperm(len(mask), generator=generator)]
            for name, mask in kept.items()
        }

    def apply(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer | None,
        companions: Sequence[nn.Module],
        kept: Kept,
    ) -> None:
        """Remove all other channels from the model, its target networks and the optimizer state.

        Args:
            model: the model to be pruned.
            optimiser: its optimizer, if there is one.
            companions: target networks, which lose the same channels.
            kept: a mask for each group.
        """
        keep = {name: mask.nonzero().flatten() for name, mask in kept.items()}
        for companion in companions:
            shrink(companion, self._graph, keep)
        self._graph = shrink(model, self._graph, keep, optimiser)
        self._model = model
        self._kept = compose(self._kept, keep)

    def before_step(self, model: nn.Module) -> None:
        """Do nothing: removed channels have no gradient."""

    def after_step(self, model: nn.Module) -> None:
        """Do nothing: removed channels do not return."""

    def state(self) -> dict[str, Tensor]:
        """Return the remaining channels of each group, numbered as in the dense network."""
        return dict(self._kept)

    def restore(
        self,
        model: nn.Module,
        state: Mapping[str, Any],
        optimiser: torch.optim.Optimizer | None = None,
        companions: Sequence[nn.Module] = (),
    ) -> None:
        """Cut a model, its target networks and its optimizer down to the channels of a state."""
        keep = {name: torch.isin(self._kept[name], kept) for name, kept in state.items()}
        self.apply(model, optimiser, companions, keep)

    def _comparable(self, scores: Scores, scope: Scope, target: float) -> Scores:
        """Return scores that can be compared between all groups.

        They are the given ones for one threshold; otherwise the share of the channels ranked with
        a channel that are worse. Among equal scores the later channel is worse.
        """
        sizes = self._graph.sizes()
        values: Scores = {}
        for name in [name for name in sizes if name in scores]:
            require_shape(scores, name, (sizes[name],))
            if not scores[name].isfinite().all():
                raise ScoreError(f"the criterion gave {name!r} a score that is not a finite number")
            values[name] = scores[name].detach().double().cpu()
        classes: Mapping[str, object] = {name: name for name in sizes}
        if scope is isomorphic:
            classes = structures(self._model, self._graph)
        elif scope({name: torch.Size([size]) for name, size in sizes.items()}, target) is None:
            return values
        for each in dict.fromkeys(classes[name] for name in values):
            together = [name for name in values if classes[name] == each]
            worst_first = _worst_first(torch.cat([values[name] for name in together]))
            shares = torch.empty(len(worst_first), dtype=torch.double)
            shares[worst_first] = torch.arange(len(shares), dtype=torch.double) / len(shares)
            parts = shares.split([sizes[name] for name in together])
            values |= dict(zip(together, parts, strict=True))
        return values

    def _order(self, scores: Scores, floor: float, rounding: int) -> list[Block]:
        """Return all channels that may be removed, in blocks, the worst first.

        A block is one channel, unless the numbers of channels are rounded; it is as good as its
        best channel. Among equal scores the later channel is worse.
        """
        ranked: list[tuple[float, int, int, Block]] = []
        for place, (name, size) in enumerate(self._graph.sizes().items()):
            if name not in scores:
                continue
            worst_first = _worst_first(scores[name]).tolist()
            removable = size - self._fewest(name, floor, rounding)
            start = 0
            # The first block of a group leaves a multiple; what remains falls by whole multiples.
            for end in range(size % rounding or rounding, removable + 1, rounding):
                value = float(scores[name][worst_first[end - 1]])
                block = [(name, channel) for channel in worst_first[start:end]]
                ranked.append((value, -place, end, block))
                start = end
        return [block for *_, block in sorted(ranked)]

    def _without(self, removed: Sequence[Block]) -> Kept:
        kept = self.alive()
        for name, channel in chain.from_iterable(removed):
            kept[name][channel] = False
        return kept


def _worst_first(scores: Tensor) -> Tensor:
    """Return the places of scores in increasing order; among equal ones, the later comes first."""
    return len(scores) - 1 - scores.flip(0).argsort(stable=True)
