"""What to prune: whole channels, cut out of the network while it is being trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import floor, prod
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import RequestError
from harness.prunable import prunable_weights
from harness.registry import units
from harness.scoring import Scores
from harness.units import Forward, Kept, Scope, ScoreError, UnreachableSparsity
from pruners.channels.gating import Gates
from pruners.channels.groups import compose
from pruners.channels.shrinking import kept_positions, shrink
from pruners.channels.tracing import trace_channels


@units("channels")
class Channels:
    """The coupled channels of a model; implements `harness.units.Units`.

    Criteria score a gate ``c = 1`` on each of them, after normalisation. At least one channel of
    each group remains. A target is reached by removing the channels with the smallest scores one
    by one, counted on the network as it would be cut, until its sparsity is not below the target.

    Args:
        model: is traced, once.
        forward: runs it on one sample.
    """

    exact = False

    def __init__(self, model: nn.Module, forward: Forward | None = None) -> None:
        if forward is None:
            raise RequestError("channels are found by running the model: a forward is needed")
        self._graph = trace_channels(model, (), forward=forward)
        if not self._graph.groups:
            raise RequestError("this model has no channels that could be removed")
        self._model = model
        self._dense_sizes = self._graph.sizes()
        self._dense_weights = sum(weight.numel() for weight in prunable_weights(model).values())
        self._kept = {name: torch.arange(size) for name, size in self._dense_sizes.items()}

    @contextmanager
    def as_variables(self, model: nn.Module) -> Iterator[dict[str, Tensor]]:
        """Give a gate for each channel, in a network that has them."""
        with Gates(model, self._graph) as gates:
            yield gates.values

    def alive(self) -> Kept:
        """Return that all channels are: those removed are no longer there."""
        sizes = self._graph.sizes()
        return {name: torch.ones(size, dtype=torch.bool) for name, size in sizes.items()}

    def masks(self) -> Kept:
        """Return nothing: what is removed is not masked but cut."""
        return {}

    def nodes(self) -> float:
        """Return the fraction of the channels that is gone, coupled ones counted once."""
        return 1 - sum(self._graph.sizes().values()) / sum(self._dense_sizes.values())

    def select(self, scores: Scores, target: float, scope: Scope) -> Kept:
        """Return which channels to keep: the smallest weight sparsity not below the target.

        Args:
            scores: a vector for each group.
            target: the fraction of the dense network's prunable weights to be gone.
            scope: None for one threshold; else the same ratio of every group is removed.

        Raises:
            UnreachableSparsity: one channel in each group still has too many weights.
            ScoreError: a group has no scores, or some that are no finite numbers.
        """
        shapes = {name: torch.Size([size]) for name, size in self._graph.sizes().items()}
        order = self._order(scores, in_groups=scope(shapes, target) is not None)
        # The smallest part of a weight is forgiven: a fraction has no exact number.
        allowed = floor((1 - target) * self._dense_weights + 1e-6)
        fewest, most = 0, len(order)
        at_least = self._weights(self._without(order))
        if at_least > allowed:
            raise UnreachableSparsity(target, 1 - at_least / self._dense_weights)
        while fewest < most:
            middle = (fewest + most) // 2
            if self._weights(self._without(order[:middle])) > allowed:
                fewest = middle + 1
            else:
                most = middle
        return self._without(order[:fewest])

    def shuffled(self, kept: Kept, generator: torch.Generator) -> Kept:
        """Return as many channels in each group, chosen at random."""
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
        """Cut all other channels out of the model, its companions and the optimiser's state."""
        keep = {name: mask.nonzero().flatten() for name, mask in kept.items()}
        for companion in companions:
            shrink(companion, self._graph, keep)
        self._graph = shrink(model, self._graph, keep, optimiser)
        self._model = model
        self._kept = compose(self._kept, keep)

    def before_step(self, model: nn.Module) -> None:
        """Do nothing: what is gone has no gradient."""

    def after_step(self, model: nn.Module) -> None:
        """Do nothing: what is gone does not come back."""

    def state(self) -> dict[str, Tensor]:
        """Return the channels that are left, numbered as in the dense network."""
        return dict(self._kept)

    def restore(
        self,
        model: nn.Module,
        state: Mapping[str, Any],
        optimiser: torch.optim.Optimizer | None = None,
        companions: Sequence[nn.Module] = (),
    ) -> None:
        """Cut a model, its companions and its optimiser down to the channels of a state."""
        keep = {name: torch.isin(self._kept[name], kept) for name, kept in state.items()}
        self.apply(model, optimiser, companions, keep)

    def _order(self, scores: Scores, in_groups: bool) -> list[tuple[str, int]]:
        """Return all channels but the best of each group, the worst first.

        Of equal scores the later channel is the worse one.
        """
        ranked: list[tuple[float, int, int, str]] = []
        for place, (name, size) in enumerate(self._graph.sizes().items()):
            if name not in scores or scores[name].shape != (size,):
                raise ScoreError(f"the criterion gave the group {name!r} no {size} scores")
            if not scores[name].isfinite().all():
                raise ScoreError(f"the criterion gave {name!r} a score that is no finite number")
            values = scores[name].detach().double().cpu()
            worst_first = values.flip(0).argsort(stable=True)
            channels = (size - 1 - worst_first).tolist()[:-1]
            for rank, channel in enumerate(channels):
                value = rank / size if in_groups else float(values[channel])
                ranked.append((value, -place, -channel, name))
        return [(name, -channel) for _, _, channel, name in sorted(ranked)]

    def _without(self, removed: Sequence[tuple[str, int]]) -> Kept:
        kept = self.alive()
        for name, channel in removed:
            kept[name][channel] = False
        return kept

    def _weights(self, kept: Kept) -> int:
        """Return the number of prunable weights of the network as it would be cut."""
        keep = {name: mask.nonzero().flatten() for name, mask in kept.items()}
        cuts = kept_positions(self._model, self._graph, keep)
        weights = 0
        for name, weight in prunable_weights(self._model).items():
            dims = cuts.get(name, {})
            weights += prod(
                int(dims[dim].sum()) if dim in dims else size
                for dim, size in enumerate(weight.shape)
            )
        return weights
