"""What to prune: whole channels, which are removed from the network while it trains."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from harness.costs.operations import operations_by_weight
from harness.errors import RequestError, Skip
from harness.prunable import prunable_weights
from harness.registry import units
from harness.scoring import Scores, scoring_mode
from harness.units import Forward, Kept, Scope, ScoreError, UnreachableSparsity
from pruners.channels.gating import Gates
from pruners.channels.groups import ChannelGraph, compose
from pruners.channels.shrinking import kept_positions, shrink
from pruners.channels.tracing import trace_channels


@units("channels")
class Channels:
    """The coupled channels of a model; implements `harness.units.Units`.

    Criteria score a gate ``c = 1`` on each channel, after normalisation. At least one channel of
    each group remains. To reach a target, the channels with the smallest scores are removed one by
    one until the sparsity of the network, as it would be cut, is not below the target.

    Args:
        model: the model, which is traced once.
        forward: runs the model on one sample.

    Raises:
        RequestError: there is no ``forward``.
        Skip: no channel can be removed.
    """

    exact = False

    def __init__(self, model: nn.Module, forward: Forward | None = None) -> None:
        if forward is None:
            raise RequestError("channels are found by running the model: a forward is needed")
        self._graph = trace_channels(model, (), forward=forward)
        self._model = model
        self._weight_costs = self._costs(model, forward)
        self._dense_sizes = self._graph.sizes()
        self._dense_cost = self._cost(self.alive())
        self._kept = {name: torch.arange(size) for name, size in self._dense_sizes.items()}

    def _costs(self, model: nn.Module, forward: Forward) -> dict[str, int]:
        """Return the cost of one weight of each prunable tensor."""
        return dict.fromkeys(prunable_weights(model), 1)

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

    def select(self, scores: Scores, target: float, scope: Scope, floor: float = 0.0) -> Kept:
        """Return the channels to keep for the smallest sparsity of weights not below the target.

        Args:
            scores: a vector for each group; a group without scores stays whole.
            target: the fraction of the dense network's prunable weights that is removed.
            scope: the sparsity distribution; unless it returns None, which means one threshold
                for all, the same ratio of every group is removed.
            floor: the minimum density, the share of each dense group that stays in any case; at
                least one channel stays.

        Raises:
            UnreachableSparsity: the channels that stay in any case have too many weights.
            ScoreError: scores of a group are not finite, or not one per channel.
        """
        shapes = {name: torch.Size([size]) for name, size in self._graph.sizes().items()}
        order = self._order(scores, scope(shapes, target) is not None, floor)
        # Tolerate a tiny part of a weight, because a binary fraction is not exact.
        allowed = math.floor((1 - target) * self._dense_cost + 1e-6)
        fewest, most = 0, len(order)
        at_least = self._cost(self._without(order))
        if at_least > allowed:
            raise UnreachableSparsity(target, 1 - at_least / self._dense_cost)
        while fewest < most:
            middle = (fewest + most) // 2
            if self._cost(self._without(order[:middle])) > allowed:
                fewest = middle + 1
            else:
                most = middle
        return self._without(order[:fewest])

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

    def _order(self, scores: Scores, in_groups: bool, floor: float) -> list[tuple[str, int]]:
        """Return all channels that may be removed, the worst first.

        Among equal scores the later channel is worse.
        """
        ranked: list[tuple[float, int, int, str]] = []
        for place, (name, size) in enumerate(self._graph.sizes().items()):
            if name not in scores:
                continue
            if scores[name].shape != (size,):
                raise ScoreError(f"the criterion gave the group {name!r} no {size} scores")
            if not scores[name].isfinite().all():
                raise ScoreError(f"the criterion gave {name!r} a score that is not a finite number")
            values = scores[name].detach().double().cpu()
            worst_first = values.flip(0).argsort(stable=True)
            stays = max(1, math.ceil(floor * self._dense_sizes[name]))
            channels = (size - 1 - worst_first).tolist()[:-stays]
            for rank, channel in enumerate(channels):
                value = rank / size if in_groups else float(values[channel])
                ranked.append((value, -place, -channel, name))
        return [(name, -channel) for _, _, channel, name in sorted(ranked)]

    def _without(self, removed: Sequence[tuple[str, int]]) -> Kept:
        kept = self.alive()
        for name, channel in removed:
            kept[name][channel] = False
        return kept

    def _cost(self, kept: Kept) -> int:
        """Return the cost of the prunable weights of the network as it would be cut."""
        keep = {name: mask.nonzero().flatten() for name, mask in kept.items()}
        cuts = kept_positions(self._model, self._graph, keep)
        cost = 0
        for name, weight in prunable_weights(self._model).items():
            dims = cuts.get(name, {})
            cost += self._weight_costs[name] * math.prod(
                int(dims[dim].sum()) if dim in dims else size
                for dim, size in enumerate(weight.shape)
            )
        return cost


@units("channels_by_operations")
class ChannelsByOperations(Channels):
    """Channels whose target is a fraction of multiply-accumulates instead of weights.

    Multiply-accumulates are those of the prunable layers on one sample; products without weights
    do not count.
    """

    target_of = "multiply-accumulates"

    def _costs(self, model: nn.Module, forward: Forward) -> dict[str, int]:
        with scoring_mode(model, batch_statistics=False):
            operations = operations_by_weight(model, partial(forward, model))
        return {
            name: operations[name] // weight.numel()
            for name, weight in prunable_weights(model).items()
        }
