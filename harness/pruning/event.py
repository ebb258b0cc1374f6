"""One pruning event: score, select, remove, and measure what it did to the gradient flow."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from harness.conditions import Conditions
from harness.errors import Skip, nearest
from harness.places import place
from harness.prunable import prunable_weights
from harness.pruning.diagnostics import gradient_flow
from harness.pruning.unchanged import left_alone
from harness.scoring import Criterion, Scores, Scoring, magnitudes, scoring_mode
from harness.task import Batch, Task
from harness.training.trainer import Trainer
from harness.units import Kept, Scope, ScoreError, Units, UnreachableSparsity

Instrument = Callable[[], AbstractContextManager[None]]
"""Gives a context that is left out of the method's costs."""


def prune(
    trainer: Trainer,
    units: Units,
    criterion: Criterion | Scores,
    targets: Sequence[float],
    scope: Scope,
    batches: Sequence[Batch],
    conditions: Conditions,
    seed: int,
    instrument: Instrument,
) -> dict[str, Any]:
    """Prune to each of the targets in turn, scoring anew for each, without training between.

    Args:
        trainer: whose model, optimiser and companions are pruned.
        units: what is removed.
        criterion: scores the units, or scores that were watched while training.
        targets: weight sparsities, non-decreasing.
        scope: how a target is spread over the tensors.
        batches: the scoring batches.
        conditions: those of the run.
        seed: of the event's random numbers.
        instrument: a context that is no part of the method's costs.

    Returns:
        What the record says of the event.
    """
    generator = torch.Generator().manual_seed(seed)

    def flow() -> float | None:
        try:
            return gradient_flow(weight_scoring(trainer, batches))
        except (RuntimeError, NotImplementedError) as error:
            if _not_differentiable(error) is None:
                raise
            return None  # the method may do without; this is for the record only

    whole: set[str] = set()
    with scoring_mode(trainer.model, conditions.statistics == "batch"):
        with instrument():
            flow_before = flow()
        for target in targets:
            kept = select(
                trainer,
                units,
                criterion,
                target,
                scope,
                batches,
                conditions,
                generator,
                instrument,
                whole,
            )
            if conditions.masks == "shuffled":
                kept = units.shuffled(kept, generator)
            units.apply(trainer.model, trainer.optimiser, trainer.stream.companions, kept)
        with instrument():
            flow_after = flow()
            kept_sha256 = digest(units.state())
    frozen = {"frozen": sorted(whole)} if whole else {}
    return {
        "gradient_flow": {"before": flow_before, "after": flow_after},
        "kept_sha256": kept_sha256,
        "scoring": {
            "batches": len(_scored(batches, conditions)),
            "statistics": conditions.statistics,
        },
        **frozen,
    }


def select(
    trainer: Trainer,
    units: Units,
    criterion: Criterion | Scores,
    target: float,
    scope: Scope,
    batches: Sequence[Batch],
    conditions: Conditions,
    generator: torch.Generator,
    instrument: Instrument,
    whole: set[str] | None = None,
) -> Kept:
    """Score, unless that was done before, and return what is to be kept; see `prune`.

    ``whole`` takes the names of the frozen weights that could not be ranked, and so stay.

    Raises:
        Skip: the network cannot be differentiated as often as the criterion needs.
        RunFailed: the criterion changed something.
        ScoreError: its scores are none.
        UnreachableSparsity: no selection reaches the target.
    """
    frozen: set[str] = set()
    if callable(criterion):
        scores, frozen = _score(
            trainer, units, criterion, batches, conditions, generator, instrument
        )
        where = place(criterion)
    else:
        scores, where = criterion, "watched scores"
    alive = units.alive()
    try:
        scores = _checked(scores, alive)
        if conditions.masks == "inverted":
            scores = {name: -each for name, each in scores.items()}
        scores = _above_all(scores, frozen & alive.keys())
        kept = units.select(scores, target, scope, conditions.floor)
    except ScoreError as error:
        raise ScoreError(f"{error}: {where}") from error
    _require_whole(kept, alive, frozen, target)
    if whole is not None:
        whole.update(frozen & alive.keys())
    return kept


def _score(
    trainer: Trainer,
    units: Units,
    criterion: Criterion,
    batches: Sequence[Batch],
    conditions: Conditions,
    generator: torch.Generator,
    instrument: Instrument,
) -> tuple[Scores, set[str]]:
    """Return a criterion's scores, and the frozen variables that it cannot rank."""
    model, scored = trainer.model, _scored(batches, conditions)

    def who() -> str:
        return f"the criterion {place(criterion)}"

    with (
        scoring_mode(model, conditions.statistics == "batch"),
        left_alone(model, trainer.optimiser, who, instrument),
        scoring_of(trainer.task, model, units, scored, generator) as scoring,
    ):
        try:
            return criterion(scoring), scoring.without_gradient
        except (RuntimeError, NotImplementedError) as error:
            if (needed := _not_differentiable(error)) is None:
                raise
            raise Skip(f"its criterion {place(criterion)} {needed}") from error


_COMPLAINTS: Sequence[tuple[str, str]] = (
    (
        r"use_reentrant=True",
        "needs gradients, which torch cannot give through checkpoints with use_reentrant=True; "
        "let the network call torch.utils.checkpoint.checkpoint(..., use_reentrant=False)",
    ),
    (
        r"derivative for '?(?:aten::)?(\w+)'? is not implemented",
        "needs second derivatives, and torch has none for {}",
    ),
    (
        r"differentiate twice (\w+): once_differentiable",
        "needs second derivatives, and the network's function {} is marked once_differentiable",
    ),
    (
        r"(.*(?:[Dd]ouble backward|differentiate twice).*)",
        "needs second derivatives, and torch says: {}",
    ),
    (
        r"One of the differentiated Tensors does not require grad",
        "differentiates frozen weights, which have no gradient; scoring.learning() gives the "
        "variables that have one",
    ),
)
"""What torch says about networks that it cannot differentiate, and what that means here."""


def _not_differentiable(error: BaseException) -> str | None:
    """Return why a criterion cannot differentiate this network; None if that is not the error."""
    for pattern, meaning in _COMPLAINTS:
        if match := re.search(pattern, str(error)):
            return meaning.format(*match.groups())
    return None


def _checked(scores: object, alive: Kept) -> Scores:
    """Return scores as units can compare them: constants, by the names of variables.

    Raises:
        ScoreError: they are none.
    """
    if not isinstance(scores, Mapping):
        raise ScoreError(
            f"the criterion gave {_kind(scores)}, not a dictionary with a tensor of scores for "
            "each variable"
        )
    checked: Scores = {}
    for name, score in scores.items():
        if name not in alive:
            raise ScoreError(
                f"the criterion gave a score to {name!r}, which is no variable"
                f"{nearest(str(name), alive)}"
            )
        if not isinstance(score, Tensor) or score.is_complex():
            what = "complex numbers" if isinstance(score, Tensor) else _kind(score)
            raise ScoreError(f"the criterion gave {name!r} {what}, not a tensor of scores")
        checked[name] = score.detach().to(alive[name].device)
    return checked


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _above_all(scores: Scores, names: set[str]) -> Scores:
    """Return scores in which those of some variables are the largest of all."""
    if not names:
        return scores
    double = any(score.dtype == torch.float64 for score in scores.values())
    dtype = torch.float64 if double else torch.float32
    largest = torch.finfo(dtype).max
    return {
        name: torch.full_like(score, largest, dtype=dtype) if name in names else score
        for name, score in scores.items()
    }


def _require_whole(kept: Kept, alive: Kept, frozen: set[str], target: float) -> None:
    """Refuse a target for which frozen weights would have to go that nothing ranks."""
    names = sorted(frozen & alive.keys())
    if all(torch.equal(kept[name], alive[name]) for name in names):
        return
    total = sum(mask.numel() for mask in alive.values())
    stay = sum(int(alive[name].count_nonzero()) for name in names)
    raise UnreachableSparsity(
        target,
        1 - stay / total,
        f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} frozen, so the criterion, which "
        "ranks by gradients, leaves them whole",
    )


def _scored(batches: Sequence[Batch], conditions: Conditions) -> Sequence[Batch]:
    """Return the batches that are scored on."""
    return batches[: len(batches) // 2] if conditions.scoring == "half" else batches


@contextmanager
def scoring_of(
    task: Task,
    model: nn.Module,
    units: Units,
    batches: Sequence[Batch],
    generator: torch.Generator,
) -> Iterator[Scoring]:
    """Give what a criterion may look at, for a model in scoring mode."""
    with units.as_variables(model) as variables:
        scoring = _scoring(task, model, variables, units.alive(), batches, generator)
        yield replace(scoring, units=units)


def weight_scoring(trainer: Trainer, batches: Sequence[Batch]) -> Scoring:
    """Return the prunable weights as variables, whatever the units of the run are."""
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
        with scoring_mode(model, batch_statistics=False), magnitudes(model, variables):
            for variable in frozen:
                variable.requires_grad_(True)
            try:
                yield partial(task.flow, model)
            finally:
                for variable in frozen:
                    variable.requires_grad_(False)

    return Scoring(
        variables=variables,
        alive=alive,
        losses=[partial(task.scoring_loss, model, batch) for batch in batches],
        without_signs=without_signs,
        generator=generator,
    )


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return a short hash of tensors by name, equal for equal ones on every device."""
    sha = hashlib.sha256()
    for name, tensor in tensors.items():
        sha.update(name.encode())
        # As bytes: NumPy does not know all types.
        bits = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        sha.update(bits.numpy().data)
    return sha.hexdigest()[:16]
