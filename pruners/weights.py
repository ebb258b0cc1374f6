"""What to prune: single weights, which masks hold at zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.errors import Skip
from harness.prunable import never_zero, prunable_weights
from harness.registry import units
from harness.scoring import Scores
from harness.units import Forward, Kept, Scope, ScoreError, UnreachableSparsity
from pruners.distributions import number_to_keep


@units("weights")
class Weights:
    """The single prunable weights of a model; implements `harness.units.Units`.

    Removed weights are exactly zero after every step, and so are their gradients and optimizer
    state. Weights are counted over all prunable tensors; tied weights count once.

    Args:
        model: the model to be pruned.
        forward: not used.

    Raises:
        Skip: a layer computes its weights from other parameters, so that zeros would not last.
    """

    exact = True

    def __init__(self, model: nn.Module, forward: Forward | None = None) -> None:
        if computed := never_zero(model):
            layers = ", ".join(f"{layer} ({how})" for layer, how in computed.items())
            raise Skip(
                f"weights are computed from others, and cannot be held at zero, in {layers}; let "
                "the task's model() build these layers with plain weights, or remove what computes "
                "them: torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')"
            )
        self._alive: Kept = {
            name: torch.ones_like(weight, dtype=torch.bool)
            for name, weight in prunable_weights(model).items()
        }
        self._masked: list[Tensor] = []
        self._masks: list[Tensor] = []

    @contextmanager
    def as_variables(self, model: nn.Module) -> Iterator[dict[str, Tensor]]:
        """Yield the weights themselves."""
        yield self.variables(model)

    def variables(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the weights themselves."""
        return dict(prunable_weights(model))

    def alive(self) -> Kept:
        """Return the masks, which are all true before the first pruning."""
        return dict(self._alive)

    def masks(self) -> Kept:
        """Return the same masks: removed weights are zero, but still there."""
        return dict(self._alive)

    def nodes(self) -> None:
        """Return None: single weights are not channels."""

    def select(self, scores: Scores, target: float, scope: Scope, floor: float = 0.0) -> Kept:
        """Return the masks of the weights with the largest scores, exact to one weight.

        Among equal scores, earlier positions are kept. Removed weights never return.

        Args:
            scores: a tensor for each variable, of its shape.
            target: the fraction of all prunable weights that is removed, earlier prunings included.
            scope: the sparsity distribution, which says how many to keep in each tensor.
            floor: the minimum density, the share of each tensor that stays in any case.

        Raises:
            UnreachableSparsity: fewer weights are alive than should be kept, or none would be left.
            ScoreError: a score is missing, has another shape, or is not finite where alive.
        """
        shapes = {name: alive.shape for name, alive in self._alive.items()}
        counts = scope(shapes, target)
        if counts is None:
            total = sum(shape.numel() for shape in shapes.values())
            grouped = {tuple(shapes): number_to_keep(total, target)}
        else:
            grouped = {(name,): counts[name] for name in shapes}
        return self._largest(scores, grouped, target, floor)

    def shuffled(self, kept: Kept, generator: torch.Generator) -> Kept:
        """Return random masks with as many weights per tensor, drawn from those alive."""
        return {
            name: _sample(self._alive[name], int(kept[name].count_nonzero()), generator)
            for name in kept
        }

    def apply(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer | None,
        companions: Sequence[nn.Module],
        kept: Kept,
    ) -> None:
        """Hold all other weights at zero from now on, and zero their optimizer state.

        Args:
            model: the model to be pruned.
            optimiser: its optimizer, if there is one.
            companions: target networks, which get the same zeros.
            kept: a mask for each prunable tensor.
        """
        self._install(model, kept)
        for network in companions:
            for name, weight in prunable_weights(network).items():
                weight.data.mul_(self._alive[name])
        if optimiser is None:
            return
        for name, weight in prunable_weights(model).items():
            for value in optimiser.state.get(weight, {}).values():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    value.mul_(self._alive[name])

    def before_step(self, model: nn.Module) -> None:
        """Zero the gradients of removed weights: clipping and moments must not see them."""
        masked = zip(self._masked, self._masks, strict=True)
        pairs = [(weight.grad, mask) for weight, mask in masked if weight.grad is not None]
        if pairs:
            gradients, masks = zip(*pairs, strict=True)
            torch._foreach_mul_(gradients, masks)

    def after_step(self, model: nn.Module) -> None:
        """Zero the removed weights again, whatever the optimizer did to them."""
        if self._masked:
            with torch.no_grad():
                torch._foreach_mul_(self._masked, self._masks)

    def state(self) -> dict[str, Tensor]:
        """Return the masks."""
        return dict(self._alive)

    def restore(
        self,
        model: nn.Module,
        state: Mapping[str, Any],
        optimiser: torch.optim.Optimizer | None = None,
        companions: Sequence[nn.Module] = (),
    ) -> None:
        """Hold at zero what the masks of a state leave out."""
        self.apply(model, optimiser, companions, dict(state))

    def _install(self, model: nn.Module, kept: Mapping[str, Tensor]) -> None:
        weights = prunable_weights(model)
        self._alive = {name: kept[name].to(weight.device) for name, weight in weights.items()}
        pruned = [name for name, alive in self._alive.items() if not alive.all()]
        self._masked = [weights[name] for name in pruned]
        # Masks as numbers: a product of equal types takes a fifth of the time of one with booleans.
        self._masks = [self._alive[name].to(weights[name].dtype) for name in pruned]
        with torch.no_grad():
            # Not by a product: zero times an infinite weight is not a number.
            for name in pruned:
                weights[name].masked_fill_(~self._alive[name], 0)

    def _largest(
        self,
        scores: Scores,
        counts: Mapping[tuple[str, ...], int],
        target: float,
        floor: float,
    ) -> Kept:
        """Keep a given number of weights in each group of tensors."""
        self._check_reachable(counts, target, floor)
        kept: Kept = {}
        for names, count in counts.items():
            flat = torch.cat([self._rankable(name, scores, floor).flatten() for name in names])
            parts = _top(flat, count).split([self._alive[name].numel() for name in names])
            kept |= {n: part.view_as(self._alive[n]) for n, part in zip(names, parts, strict=True)}
        return kept

    def _check_reachable(
        self, counts: Mapping[tuple[str, ...], int], target: float, floor: float
    ) -> None:
        total = sum(mask.numel() for mask in self._alive.values())
        fewest = {
            names: sum(ceil(floor * self._alive[name].numel()) for name in names)
            for names in counts
        }
        if any(count < fewest[names] for names, count in counts.items()):
            kept = sum(max(count, fewest[names]) for names, count in counts.items())
            raise UnreachableSparsity(target, 1 - kept / total)
        if sum(counts.values()) == 0:
            raise UnreachableSparsity(target, 1 - 1 / total)
        alive = {
            names: sum(int(self._alive[name].count_nonzero()) for name in names) for names in counts
        }
        if any(counts[names] > alive[names] for names in counts):
            reachable = sum(min(counts[names], alive[names]) for names in counts)
            raise UnreachableSparsity(target, 1 - reachable / total)

    def _rankable(self, name: str, scores: Scores, floor: float) -> Tensor:
        """Return a tensor's scores: -inf where removed, inf where the floor protects them."""
        alive = self._alive[name]
        if name not in scores or scores[name].shape != alive.shape:
            raise ScoreError(f"the criterion gave {name!r} no score of shape {tuple(alive.shape)}")
        # NumPy, which ranks, has no bfloat16 and takes no tensors that require grad.
        exact = scores[name].dtype in (torch.float32, torch.float64)
        score = scores[name].detach() if exact else scores[name].detach().float()
        if not (score.isfinite() | ~alive).all():
            raise ScoreError(f"the criterion gave {name!r} a score that is not a finite number")
        rankable = torch.where(alive, score, -torch.inf)
        if floor > 0:
            protected = _top(rankable.flatten(), ceil(floor * rankable.numel()))
            rankable = torch.where(protected.view_as(rankable), torch.inf, rankable)
        return rankable


def _top(scores: Tensor, count: int) -> Tensor:
    """Return a mask of the ``count`` largest of a vector; among ties, of the earliest."""
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    # On a CPU NumPy selects in a fifth of the time of torch.kthvalue.
    place = scores.numel() - count
    threshold = float(np.partition(scores.cpu().numpy(), place)[place])
    chosen = scores > threshold
    ties = (scores == threshold).nonzero().flatten()
    chosen[ties[: count - int(chosen.count_nonzero())]] = True
    return chosen


def _sample(alive: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return a mask of ``count`` entries, drawn without replacement from those alive."""
    positions = alive.flatten().nonzero().flatten()
    drawn = torch.randperm(len(positions), generator=generator)[:count]
    mask = torch.zeros(alive.numel(), dtype=torch.bool, device=alive.device)
    mask[positions[drawn.to(alive.device)]] = True
    return mask.view_as(alive)
