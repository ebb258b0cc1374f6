"""What to prune: single weights, which masks hold at zero, and which can return."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.errors import Skip
from harness.prunable import copied, never_zero, prunable_weights
from harness.registry import units
from harness.scoring import Scores
from harness.units import (
    Forward,
    Kept,
    Limit,
    Pattern,
    Prospect,
    Scope,
    ScoreError,
    UnreachableBudget,
    UnreachableSparsity,
    require_shape,
)
from harness.weight_matrices import weight_matrices
from pruners import patterns
from pruners.distributions import PerOutput, number_to_keep


@units("weights")
class Weights:
    """The single prunable weights of a model.

    Implements `harness.units.BudgetedUnits` and `harness.units.ReturningUnits`.

    Removed weights are exactly zero after every step, and so are their gradients and optimizer
    state. Weights are counted over all prunable tensors; tied weights count once.

    Args:
        model: the model to be pruned.
        forward: not used.

    Raises:
        Skip: a layer computes its weights from other parameters, so that zeros would not last.
    """

    exact = True
    obeys: Collection[str] = ("macs", "params", "bytes")
    """Multiply-accumulates are those with weights that remain. No mask makes a network faster."""

    def __init__(self, model: nn.Module, forward: Forward | None = None) -> None:
        if computed := never_zero(model):
            layers = ", ".join(f"{layer} ({how})" for layer, how in computed.items())
            raise Skip(
                f"weights are computed from others, and cannot be held at zero, in {layers}; let "
                "the task's model() build these layers with plain weights, or remove what computes "
                "them: torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')"
            )
        self._model = model
        self._alive: Kept = {
            name: torch.ones_like(weight, dtype=torch.bool)
            for name, weight in prunable_weights(model).items()
        }
        self._left = {name: alive.numel() for name, alive in self._alive.items()}
        """How many weights of each tensor remain."""
        self._masked: dict[str, Tensor] = {}
        self._factors: dict[str, Tensor] = {}
        """The masks of these weights as numbers of their type, 1 and 0, which multiply faster."""

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
        """Return the masks of the weights with the largest scores, exact to one weight.

        Among equal scores, earlier positions are kept. Removed weights do not return.

        Args:
            scores: a tensor for each variable, of its shape.
            target: the fraction of all prunable weights that is removed, earlier prunings included.
            scope: the sparsity distribution, which says how many to keep in each tensor.
            floor: the minimum density, the share of each tensor that stays in any case.
            rounding: not used.
            limit: what the network may cost, in place of the target.

        Raises:
            UnreachableSparsity: fewer weights are alive than should be kept, or none would be left.
            UnreachableBudget: the weights that stay in any case cost too much.
            ScoreError: a score is missing, has another shape, or is not finite where alive.
        """
        counts = self._counts(scope, target)
        if limit is None:
            self._check_reachable(counts, target, floor)
        # Of an output, the best stay, whether or not they are among the best of the tensor.
        protected = 0.0 if isinstance(scope, PerOutput) else floor
        rankable = {name: self._protected(name, scores, protected) for name in self._alive}
        if limit is not None:
            return self._within(limit, rankable, scope, floor)
        kept = self._selected(rankable, counts, scope)
        if isinstance(scope, PerOutput):
            kept = {name: mask & self._alive[name] for name, mask in kept.items()}
            left = sum(int(mask.count_nonzero()) for mask in kept.values())
            if left < sum(counts.values()):
                total = sum(mask.numel() for mask in kept.values())
                raise UnreachableSparsity(target, 1 - left / total, "an output has too few weights")
        return kept

    def left_by(self, pattern: Pattern) -> int:
        """Return how many weights a pattern leaves.

        Raises:
            Skip: it fits no layer.
        """
        return patterns.left_by(self._model, pattern)

    def misfits(self, pattern: Pattern) -> dict[str, str]:
        """Return why a pattern does not fit, for the tensors that it leaves whole."""
        return patterns.misfits(self._model, pattern)

    def select_pattern(self, scores: Scores, pattern: Pattern) -> Kept:
        """Return the masks of the largest scores in each block of a pattern.

        Among equal scores, earlier positions are kept. Of weights that were removed earlier, none
        returns. Tensors that the pattern does not fit stay as they are.

        Raises:
            ScoreError: a score is missing, has another shape, or is not finite where alive.
        """
        rankable = {name: self._rankable(name, scores, each) for name, each in self._alive.items()}
        chosen = patterns.best(self._model, pattern, rankable)
        return {name: chosen.get(name, alive) & alive for name, alive in self._alive.items()}

    def _selected(
        self, rankable: Scores, counts: Mapping[tuple[str, ...], int], scope: Scope
    ) -> Kept:
        """Keep a given number of weights in each group of tensors."""
        if isinstance(scope, PerOutput):
            return self._largest_of_outputs(rankable, counts)
        return self._largest(rankable, counts)

    def exchanged(self, drop: Scores, grow: Scores, share: float) -> Kept:
        """Return the masks after a share of each tensor's weights is exchanged for others.

        Weights that were just removed can return at once. See
        `harness.units.ReturningUnits.exchanged`.
        """
        kept: Kept = {}
        for name, alive in self._alive.items():
            remaining = self._left[name]
            count = int(share * remaining) if name in drop and name in grow else 0
            if count == 0:
                kept[name] = alive
                continue
            (stay,) = _top([self._rankable(name, drop, alive)], remaining - count)
            (back,) = _top([self._rankable(name, grow, ~stay)], count)
            kept[name] = stay | back
        return kept

    def _counts(self, scope: Scope, sparsity: float) -> dict[tuple[str, ...], int]:
        """Return how many weights to keep of all tensors together, or of each."""
        shapes = {name: alive.shape for name, alive in self._alive.items()}
        counts = scope(shapes, sparsity)
        if counts is None:
            total = sum(shape.numel() for shape in shapes.values())
            return {tuple(shapes): number_to_keep(total, sparsity)}
        return {(name,): counts[name] for name in shapes}

    def _within(self, limit: Limit, rankable: Scores, scope: Scope, floor: float) -> Kept:
        """Return the masks of the most weights that a limit allows, the largest scores first."""
        total = sum(alive.numel() for alive in self._alive.values())

        def kept(removed: int) -> Kept:
            counts = self._counts(scope, removed / total)
            fewest = {names: self._fewest(names, floor) for names in counts}
            # A tensor may have lost more than its share, and keeps its floor.
            at_least = {names: max(count, fewest[names]) for names, count in counts.items()}
            chosen = self._selected(rankable, at_least, scope)
            return {name: mask & self._alive[name] for name, mask in chosen.items()}

        def is_allowed(removed: int) -> bool:
            return limit.allows(self.prospect(kept(removed)))

        most = total - 1
        if not is_allowed(most):
            least = limit.cost(self.prospect(kept(most)))
            raise UnreachableBudget(limit, least, self._protection(floor))
        return kept(bisect_left(range(most), True, key=is_allowed))

    def prospect(self, kept: Kept) -> Prospect:
        """Return the network as it would be if only these weights were kept."""
        names = {id(parameter): name for name, parameter in self._model.named_parameters()}
        elements = {name: parameter.numel() for name, parameter in self._model.named_parameters()}
        shape = {name: int(mask.count_nonzero()) for name, mask in kept.items()}
        for name, weight in prunable_weights(self._model).items():
            elements[names[id(weight)]] = shape[name]

        def masked() -> nn.Module:
            network = copied(self._model)
            with torch.no_grad():
                for name, weight in prunable_weights(network).items():
                    weight.masked_fill_(~kept[name].to(weight.device), 0)
            return network

        return Prospect(elements, shape, masked, kept, kept)

    def smallest(self, scored: Collection[str], floor: float, rounding: int) -> Kept:
        """Return masks of the fewest weights that remain: those of the floor, and at least one."""
        kept: Kept = {}
        for name, alive in self._alive.items():
            places = alive.flatten().nonzero().flatten()
            stays = self._fewest((name,), floor) if name in scored else len(places)
            kept[name] = torch.zeros_like(alive)
            kept[name].view(-1)[places[:stays]] = True
        if not any(bool(mask.any()) for mask in kept.values()):
            first = min(kept, key=lambda name: kept[name].numel())
            kept[first].view(-1)[0] = True
        return kept

    def _fewest(self, names: Sequence[str], floor: float) -> int:
        """Return how many weights of some tensors stay in any case."""
        return sum(ceil(floor * self._alive[name].numel()) for name in names)

    def _protection(self, floor: float) -> str:
        """Return why a target is out of reach if it is the floor; without one a weight stays."""
        protects = self._fewest(list(self._alive), floor) > 1
        return f"floor={floor:g} protects weights of every layer" if protects else ""

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return for each tensor how many weights remain, and how many it has."""
        return {name: (self._left[name], alive.numel()) for name, alive in self._alive.items()}

    def why_whole(self, scored: Collection[str], floor: float, rounding: int) -> dict[str, str]:
        """Return for each tensor from which no weight is removed the reason for it."""
        whole = [name for name, (alive, size) in self.sizes().items() if alive == size]
        return {
            name: "minimum density"
            if self._fewest((name,), floor) == self._alive[name].numel()
            else "scores above the threshold"
            for name in whole
        }

    def pinned(self) -> Mapping[str, str]:
        """Return nothing: every prunable weight can be removed."""
        return {}

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
        weights, factors = prunable_weights(model), self._factors
        self._model = model
        self._alive = {name: kept[name].to(weight.device) for name, weight in weights.items()}
        self._left = {name: int(alive.count_nonzero()) for name, alive in self._alive.items()}
        self._masked = {n: w for n, w in weights.items() if self._left[n] < w.numel()}
        self._factors = {}
        for name, weight in self._masked.items():
            alive = self._alive[name]
            _zero(weight.detach(), alive)
            factor = factors.get(name, torch.empty_like(weight)).to(weight)
            factor.copy_(_numbers(alive))
            for value in {} if optimiser is None else optimiser.state.get(weight, {}).values():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    value.mul_(factor.to(value.dtype))
            self._factors[name] = factor
        for network in companions:
            for name, weight in prunable_weights(network).items():
                weight.data.mul_(self._alive[name])

    def before_step(self, model: nn.Module) -> None:
        """Zero the gradients of removed weights: clipping and moments must not see them."""
        gradients = {name: w.grad for name, w in self._masked.items() if w.grad is not None}
        if gradients:
            factors = [self._factors[name] for name in gradients]
            torch._foreach_mul_([*gradients.values()], factors)

    def after_step(self, model: nn.Module) -> None:
        """Zero the removed weights again, whatever the optimizer did to them."""
        if self._masked:
            with torch.no_grad():
                torch._foreach_mul_([*self._masked.values()], [*self._factors.values()])

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

    def _largest(self, rankable: Scores, counts: Mapping[tuple[str, ...], int]) -> Kept:
        """Keep a given number of weights in each group of tensors."""
        kept: Kept = {}
        for names, count in counts.items():
            masks = _top([rankable[name] for name in names], count)
            kept |= zip(names, masks, strict=True)
        return kept

    def _largest_of_outputs(self, rankable: Scores, counts: Mapping[tuple[str, ...], int]) -> Kept:
        """Keep a given number of weights in each tensor, and as many in each of its outputs."""
        matrices = weight_matrices(self._model)
        kept: Kept = {}
        for names, count in counts.items():
            if len(names) > 1:
                raise ScoreError("PerOutput(...) takes a distribution with a number for each layer")
            (name,) = names
            unfolded = matrices[name].unfolded(rankable[name])
            rows = unfolded.flatten(2).flatten(0, 1)
            # The best of all rows come first, then the second best, and so on.
            order = rows.argsort(dim=1, descending=True, stable=True)
            ranks = order.argsort(dim=1)
            whole, more = divmod(count, len(rows))
            mask = ranks < whole
            (mask[ranks == whole],) = _top([rows[ranks == whole]], more)
            kept[name] = matrices[name].folded(mask, tuple(rankable[name].shape))
        return kept

    def _check_reachable(
        self, counts: Mapping[tuple[str, ...], int], target: float, floor: float
    ) -> None:
        total = sum(mask.numel() for mask in self._alive.values())
        fewest = {names: self._fewest(names, floor) for names in counts}
        if any(count < fewest[names] for names, count in counts.items()):
            kept = sum(max(count, fewest[names]) for names, count in counts.items())
            raise UnreachableSparsity(target, 1 - kept / total, self._protection(floor))
        if sum(counts.values()) == 0:
            raise UnreachableSparsity(target, 1 - 1 / total)
        alive = {names: sum(self._left[name] for name in names) for names in counts}
        if any(counts[names] > alive[names] for names in counts):
            reachable = sum(min(counts[names], alive[names]) for names in counts)
            raise UnreachableSparsity(target, 1 - reachable / total)

    def _protected(self, name: str, scores: Scores, floor: float) -> Tensor:
        """Return a tensor's scores: -inf where removed, inf where the floor protects them."""
        rankable = self._rankable(name, scores, self._alive[name])
        if floor > 0:
            (protected,) = _top([rankable], ceil(floor * rankable.numel()))
            rankable = torch.where(protected, torch.inf, rankable)
        return rankable

    def _rankable(self, name: str, scores: Scores, where: Tensor) -> Tensor:
        """Return a tensor's scores as numbers that NumPy can rank, -inf elsewhere.

        Raises:
            ScoreError: they have another shape, or one of them is not finite there.
        """
        require_shape(scores, name, tuple(where.shape))
        # NumPy, which ranks, has no bfloat16 and takes no tensors that require grad.
        exact = scores[name].dtype in (torch.float32, torch.float64)
        score = scores[name].detach() if exact else scores[name].detach().float()
        if score.sum().isfinite():  # then every score is
            # At scattered places a minimum takes a tenth of the time of torch.where.
            bound = _numbers(where).to(score.dtype).sub_(0.5).mul_(torch.inf)
            return torch.minimum(score, bound, out=bound)
        if not (score.isfinite() | ~where).all():
            raise ScoreError(f"the criterion gave {name!r} a score that is not a finite number")
        return torch.where(where, score, -torch.inf)


def _numbers(mask: Tensor) -> Tensor:
    """Return a mask as bytes, 1 and 0; torch converts them six times as fast as booleans."""
    return mask.view(torch.int8)


_BITS: Mapping[int, torch.dtype] = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Whole numbers by their size in bytes."""


def _zero(weight: Tensor, kept: Tensor) -> None:
    """Set all other entries to zero, whatever they were.

    Not by a product, since zero times infinity is not a number, but by one of the bits: at
    scattered places it takes a twentieth of the time of ``masked_fill_``.
    """
    if weight.element_size() in _BITS:
        weight.view(_BITS[weight.element_size()]).mul_(kept)
    else:
        weight.masked_fill_(~kept, 0)


def _top(scores: Sequence[Tensor], count: int) -> list[Tensor]:
    """Return masks of the ``count`` largest of some tensors together; among ties, the earliest."""
    # NumPy compares in a quarter of the time of torch, and small arrays stay in the cache.
    values = [each.flatten().cpu().numpy() for each in scores]
    place = sum(map(len, values)) - count
    threshold = _nth_smallest(values, place) if count else np.inf
    chosen = [each >= threshold for each in values]
    surplus = sum(map(np.count_nonzero, chosen)) - count
    for mask, each in zip(reversed(chosen), reversed(values), strict=True):
        if surplus == 0:
            break
        ties = np.flatnonzero(each == threshold)[-surplus:]
        mask[ties] = False
        surplus -= len(ties)
    return [
        torch.from_numpy(mask).to(each.device).view_as(each)
        for mask, each in zip(chosen, scores, strict=True)
    ]


def _nth_smallest(vectors: Sequence[NDArray[Any]], place: int) -> float:
    """Return the number that is at a place, from 0, among the sorted values of all vectors.

    If they are many, a sample says between which values it is, and only these are ranked. On a CPU
    NumPy ranks in a fifth of the time of torch.kthvalue.
    """
    length = sum(map(len, vectors))
    if length > 2**18:
        sample = np.sort(np.concatenate([each[:: length // 2**16] for each in vectors]))
        middle, margin = place * len(sample) // length, 2**9
        # The removed weights are all -inf. They can be most of all, so they are left out.
        least = sample[middle - margin] if middle >= margin else -np.inf
        most = sample[middle + margin] if middle + margin < len(sample) else np.inf
        above = [each > least for each in vectors]
        fewer = length - sum(map(np.count_nonzero, above))
        between = [
            np.extract(mask & (each <= most), each)
            for each, mask in zip(vectors, above, strict=True)
        ]
        if fewer <= place < fewer + sum(map(len, between)):
            vectors, place = between, place - fewer
    return float(np.partition(np.concatenate(vectors), place)[place])


def _sample(alive: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return a mask of ``count`` entries, drawn without replacement from those alive."""
    positions = alive.flatten().nonzero().flatten()
    drawn = torch.randperm(len(positions), generator=generator)[:count]
    mask = torch.zeros(alive.numel(), dtype=torch.bool, device=alive.device)
    mask[positions[drawn.to(alive.device)]] = True
    return mask.view_as(alive)
