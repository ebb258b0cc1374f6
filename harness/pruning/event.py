"""A pruning event: score, select, remove, and measure the gradient flow before and after."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harness.conditions import Conditions
from harness.costs.meter import Instrument
from harness.errors import Skip, place
from harness.functional import FunctionalNetwork
from harness.layer_inputs import LayerInputs
from harness.prunable import prunable_weights
from harness.pruning.diagnostics import gradient_flow
from harness.pruning.scores import (
    above_all,
    checked_scores,
    require_whole,
    why_not_differentiable,
)
from harness.pruning.scoring_cost import Passes, ScoringCost
from harness.pruning.unchanged import left_alone
from harness.scoring import (
    Criterion,
    Reconstructing,
    Scores,
    Scoring,
    WithoutBarriers,
    magnitudes,
    scoring_mode,
)
from harness.task import Batch, Task
from harness.training.trainer import Trainer
from harness.units import (
    BudgetedUnits,
    Kept,
    Limit,
    Pattern,
    PatternedUnits,
    ReturningUnits,
    Scope,
    ScoreError,
    Units,
)


class Selection(NamedTuple):
    """What one pruning would keep."""

    kept: Kept
    whole: set[str]
    """Frozen weights that the criterion could not rank, and that therefore stay."""
    scored: set[str]
    """The tensors that the criterion scored."""


Limiter = Callable[[float], Limit | None]
"""Maps a target to what the network may cost; None where the target is a weight sparsity."""


def no_limit(target: float) -> None:
    """Prune to a weight sparsity; a `Limiter`."""


class Outcome(NamedTuple):
    """What a pruning event did."""

    event: dict[str, Any]
    """What the record says of it."""
    scored: set[str]
    """The tensors that the criterion scored the last time."""


class Exchange(NamedTuple):
    """What an exchange of units did."""

    event: dict[str, Any]
    """What the record says of it."""
    units: int
    """How many units were removed, and how many others returned."""


@dataclass(frozen=True)
class PruningEvents:
    """The pruning events of one run.

    Args:
        trainer: holds the network, its optimizer and its target networks.
        batches: the scoring batches, equal for all methods of a seed.
        conditions: those of the run.
        instrument: a context that is left out of the method's costs.
        scoring_cost: counts and measures what criteria do.
    """

    trainer: Trainer
    batches: Sequence[Batch]
    conditions: Conditions
    instrument: Instrument
    scoring_cost: ScoringCost
    _called: set[str] = field(default_factory=set, init=False)

    def prune(
        self,
        units: Units,
        criterion: Criterion | Scores,
        targets: Sequence[float],
        scope: Scope | Pattern,
        seed: int,
        limiter: Limiter = no_limit,
        measured: bool = True,
    ) -> Outcome:
        """Prune to each target in turn, without training in between.

        Args:
            units: what is removed.
            criterion: scores the units again for each target; or scores watched in training.
            targets: weight sparsities, or fractions of a cost to remove; non-decreasing.
            scope: how a target is distributed over the tensors; or what remains of each.
            seed: of the event's random numbers.
            limiter: gives what the network may cost for each target.
            measured: whether to measure the gradient flow before and after.
        """
        trainer, generator = self.trainer, torch.Generator().manual_seed(seed)
        whole: set[str] = set()
        scored: set[str] = set()
        values: dict[str, Tensor] = {}
        passes_before = self.scoring_cost.passes
        flow_before = self._gradient_flow() if measured else None
        for target in targets:
            kept, stay, scored = self.select(units, criterion, target, scope, generator, limiter)
            whole |= stay
            if self.conditions.masks == "shuffled":
                kept = _shuffled(units, kept, scope, generator)
            if isinstance(criterion, Reconstructing):
                values = self._remaining(units, criterion, kept, generator)
            units.apply(trainer.model, trainer.optimiser, trainer.stream.companions, kept)
            self._give(values, kept)
        with self.instrument(takes_memory=measured):
            flow_after = self._gradient_flow() if measured else None
            kept_sha256 = digest(units.state())
        event = {
            **(
                {"gradient_flow": {"before": flow_before, "after": flow_after}}
                if measured
                else {"measured": False}
            ),
            "kept_sha256": kept_sha256,
            "scoring": self._scoring(passes_before),
            **({"frozen": sorted(whole)} if whole else {}),
            **({"values_sha256": digest(values)} if values else {}),
        }
        return Outcome(event, scored)

    def exchange(
        self,
        units: ReturningUnits,
        drop: Criterion,
        grow: Criterion,
        share: float,
        seed: int,
    ) -> Exchange:
        """Remove a share of each tensor's units, and let as many others return.

        Args:
            units: what is exchanged.
            drop: scores the units that remain.
            grow: scores the others.
            share: the fraction of the units that remain in a tensor.
            seed: of the event's random numbers.

        Raises:
            Skip, RunFailed, ScoreError: as for `select`.
        """
        trainer, generator = self.trainer, torch.Generator().manual_seed(seed)
        before, passes_before = units.alive(), self.scoring_cost.passes
        dropping, growing = (
            self._exchange_scores(units, criterion, generator) for criterion in (drop, grow)
        )
        try:
            kept = units.exchanged(dropping, growing, share)
        except ScoreError as error:
            raise ScoreError(f"{error}: {place(drop)} and {place(grow)}") from error
        units.apply(trainer.model, trainer.optimiser, trainer.stream.companions, kept)
        with self.instrument(takes_memory=False):
            moved = sum(int((before[name] & ~kept[name]).sum()) for name in before)
            event = {"kept_sha256": digest(units.state()), "scoring": self._scoring(passes_before)}
        return Exchange({"exchanged": moved, **event}, moved)

    def _exchange_scores(
        self, units: Units, criterion: Criterion, generator: torch.Generator
    ) -> Scores:
        """Return the scores of the tensors that can be ranked."""
        scores, frozen, _ = self.scores_of(units, criterion, generator)
        if self.conditions.masks == "shuffled":
            scores = {
                name: torch.rand(score.shape, generator=generator).to(score.device)
                for name, score in scores.items()
            }
        return {name: score for name, score in scores.items() if name not in frozen}

    def _scoring(self, passes_before: Passes) -> dict[str, Any]:
        """Return what the record says of the scoring since some passes were taken."""
        return {
            "batches": len(self._scored_batches),
            "statistics": self.conditions.statistics,
            "passes": asdict(self.scoring_cost.passes - passes_before),
        }

    def select(
        self,
        units: Units,
        criterion: Criterion | Scores,
        target: float,
        scope: Scope | Pattern,
        generator: torch.Generator,
        limiter: Limiter = no_limit,
    ) -> Selection:
        """Score the units, unless scores are given, and select what to keep; see `prune`.

        Raises:
            Skip: the network cannot be differentiated as often as the criterion needs.
            RunFailed: the criterion changed the network.
            ScoreError: its scores cannot be ranked.
            UnreachableSparsity: no selection reaches the target.
            UnreachableBudget: no selection is within the limit.
        """
        scores, frozen, where = self.scores_of(units, criterion, generator)
        try:
            scores = above_all(scores, frozen)
            limit = limiter(target)
            kept = self._selected(units, scores, target, scope, limit)
        except ScoreError as error:
            raise ScoreError(f"{error}: {where}") from error
        require_whole(kept, units.alive(), frozen, target, limit)
        return Selection(kept, frozen, set(scores))

    def scores_of(
        self, units: Units, criterion: Criterion | Scores, generator: torch.Generator
    ) -> tuple[Scores, set[str], str]:
        """Return checked scores, the frozen variables that have none, and the criterion's place.

        Raises:
            Skip, RunFailed, ScoreError: as for `select`.
        """
        frozen: set[str] = set()
        if callable(criterion):
            scores, frozen = self._score(units, criterion, generator)
            where = place(criterion)
        else:
            scores, where = criterion, "watched scores"
        alive = units.alive()
        try:
            scores = checked_scores(scores, alive)
        except ScoreError as error:
            raise ScoreError(f"{error}: {where}") from error
        if self.conditions.masks == "inverted":
            scores = {name: -each for name, each in scores.items()}
        return scores, frozen & alive.keys(), where

    def _selected(
        self,
        units: Units,
        scores: Scores,
        target: float,
        scope: Scope | Pattern,
        limit: Limit | None,
    ) -> Kept:
        floor, rounding = self.conditions.floor, self.conditions.rounding
        if isinstance(scope, Pattern):
            assert isinstance(units, PatternedUnits)
            return units.select_pattern(scores, scope)
        if limit is None and rounding == 1:
            return units.select(scores, target, scope, floor)
        assert isinstance(units, BudgetedUnits)
        return units.select(scores, target, scope, floor, rounding=rounding, limit=limit)

    def _is_first_of(self, criterion: Callable[..., object]) -> bool:
        """Return whether a criterion has not been called before in this process."""
        where = place(criterion)
        is_first = where not in self._called
        self._called.add(where)
        return is_first

    @property
    def _batch_statistics(self) -> bool:
        return self.conditions.statistics == "batch"

    @property
    def _scored_batches(self) -> Sequence[Batch]:
        half = len(self.batches) // 2
        return self.batches[:half] if self.conditions.scoring == "half" else self.batches

    def _gradient_flow(self) -> float | None:
        """Measure the gradient flow for the record; None if the network has no gradient."""
        try:
            with self.instrument(), scoring_mode(self.trainer.model, self._batch_statistics):
                return gradient_flow(weight_scoring(self.trainer, self.batches))
        except (RuntimeError, NotImplementedError) as error:
            if why_not_differentiable(error) is None:
                raise
            return None  # the method may not need it

    def _score(
        self, units: Units, criterion: Criterion, generator: torch.Generator
    ) -> tuple[Scores, set[str]]:
        """Return a criterion's scores, and the frozen variables that it cannot rank."""
        with self._shown_to(criterion, units, generator) as scoring:
            return criterion(scoring), scoring.without_gradient

    @contextmanager
    def _shown_to(
        self, criterion: Callable[..., object], units: Units, generator: torch.Generator
    ) -> Iterator[Scoring]:
        """Yield what a criterion sees, and check that it changes nothing."""
        model, optimiser = self.trainer.model, self.trainer.optimiser

        def who() -> str:
            return f"the criterion {place(criterion)}"

        with (
            scoring_mode(model, self._batch_statistics),
            left_alone(model, optimiser, who, self.instrument, self._is_first_of(criterion)),
            scoring_of(self.trainer.task, model, units, self._scored_batches, generator) as seen,
            self.scoring_cost.of(
                model, self.trainer.masks(), self.batches[0], seen, place(criterion)
            ) as scoring,
        ):
            try:
                yield scoring
            except (RuntimeError, NotImplementedError) as error:
                if (needed := why_not_differentiable(error)) is None:
                    raise
                raise Skip(f"its criterion {place(criterion)} {needed}") from error

    def _remaining(
        self, units: Units, criterion: Reconstructing, kept: Kept, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return a criterion's new values of the weights that remain.

        Raises:
            ScoreError: one is of another shape than its weight, or not a number.
        """
        with self._shown_to(criterion.remaining, units, generator) as scoring:
            values = criterion.remaining(scoring, kept)
        for name, value in values.items():
            if name not in kept or value.shape != kept[name].shape:
                raise ScoreError(
                    f"the criterion returned values of shape {tuple(value.shape)} for {name!r}, "
                    f"which is no weight of this shape: {place(criterion)}"
                )
            if not value[kept[name]].isfinite().all():
                raise ScoreError(
                    f"the criterion gave {name!r} a value that is not a finite number: "
                    f"{place(criterion)}"
                )
        return values

    @torch.no_grad()
    def _give(self, values: Mapping[str, Tensor], kept: Kept) -> None:
        """Give new values to the weights that remain."""
        weights = prunable_weights(self.trainer.model)
        for name, value in values.items():
            weights[name].copy_(value.detach()).masked_fill_(~kept[name], 0)


def _shuffled(units: Units, kept: Kept, scope: Scope | Pattern, generator: torch.Generator) -> Kept:
    """Return a random selection of as many variables in each tensor, or block of a pattern."""
    if not isinstance(scope, Pattern):
        return units.shuffled(kept, generator)
    assert isinstance(units, PatternedUnits)
    scores = {
        name: torch.rand(mask.shape, generator=generator).to(mask.device)
        for name, mask in kept.items()
    }
    return units.select_pattern(scores, scope)


@contextmanager
def scoring_of(
    task: Task,
    model: nn.Module,
    units: Units,
    batches: Sequence[Batch],
    generator: torch.Generator,
) -> Iterator[Scoring]:
    """Yield what a criterion sees of a model in scoring mode."""
    with units.as_variables(model) as variables:
        scoring = _scoring(task, model, variables, units.alive(), batches, generator)
        yield replace(scoring, units=units)


def weight_scoring(trainer: Trainer, batches: Sequence[Batch]) -> Scoring:
    """Return a scoring whose variables are the prunable weights, for any units of the run."""
    weights = prunable_weights(trainer.model)
    alive = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    alive |= trainer.masks()
    return _scoring(trainer.task, trainer.model, weights, alive, batches, torch.Generator())


def _scoring(
    task: Task,
    model: nn.Module,
    variables: Mapping[str, Tensor],
    alive: Mapping[str, Tensor],
    batches: Sequence[Batch],
    generator: torch.Generator,
) -> Scoring:
    @contextmanager
    def without_signs() -> Iterator[Callable[[], Tensor]]:
        frozen = [variable for variable in variables.values() if not variable.requires_grad]
        with (
            scoring_mode(model, batch_statistics=False),
            magnitudes(model, variables),
            WithoutBarriers(),
        ):
            for variable in frozen:
                variable.requires_grad_(True)
            try:
                yield partial(task.flow, model)
            finally:
                for variable in frozen:
                    variable.requires_grad_(False)

    losses = [partial(task.scoring_loss, model, batch) for batch in batches]
    parameters = {id(parameter) for parameter in model.parameters()}
    weights = all(id(variable) in parameters for variable in variables.values())
    return Scoring(
        variables=variables,
        alive=alive,
        losses=losses,
        without_signs=without_signs,
        generator=generator,
        inputs=LayerInputs(model, losses),
        network=FunctionalNetwork(task, model, variables, batches) if weights else None,
    )


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return a short hash of named tensors, the same on every device."""
    sha = hashlib.sha256()
    for name, tensor in tensors.items():
        sha.update(name.encode())
        # As bytes, because NumPy lacks some types.
        bits = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        sha.update(bits.numpy().data)
    return sha.hexdigest()[:16]
