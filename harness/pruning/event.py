"""One pruning event: score, select, remove, and measure what it did to the gradient flow."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from harness.prunable import prunable_weights
from harness.pruning.theory import gradient_flow
from harness.scoring import Criterion, Scores, Scoring, magnitudes, scoring_mode
from harness.task import Batch, Task
from harness.training.trainer import Trainer
from harness.units import Kept, Scope, Units


def prune(
    trainer: Trainer,
    units: Units,
    criterion: Criterion | Scores,
    targets: Sequence[float],
    scope: Scope,
    batches: Sequence[Batch],
    conditions: Mapping[str, Any],
    seed: int,
    instrument: Callable[[], AbstractContextManager[None]],
) -> dict[str, object]:
    """Prune to each of the targets in turn, scoring anew for each, without training between.

    Args:
        trainer: whose model, optimiser and companions are pruned.
        units: what is removed.
        criterion: scores the units, or scores that were watched while training.
        targets: weight sparsities, non-decreasing.
        scope: how a target is spread over the tensors.
        batches: the scoring batches.
        conditions: `harness.conditions`.
        seed: of the event's random numbers.
        instrument: a context that is no part of the method's costs.

    Returns:
        What the record says of the event.
    """
    generator = torch.Generator().manual_seed(seed)

    def flow() -> float:
        return gradient_flow(weight_scoring(trainer, batches))

    with scoring_mode(trainer.model, conditions["statistics"] == "batch"):
        with instrument():
            flow_before = flow()
        for target in targets:
            kept = select(trainer, units, criterion, target, scope, batches, conditions, generator)
            if conditions["masks"] == "shuffled":
                kept = units.shuffled(kept, generator)
            units.apply(trainer.model, trainer.optimiser, trainer.stream.companions, kept)
        with instrument():
            flow_after = flow()
            kept_sha256 = digest(units.state())
    return {
        "gradient_flow": {"before": flow_before, "after": flow_after},
        "kept_sha256": kept_sha256,
        "scoring": {
            "batches": len(_scored(batches, conditions)),
            "statistics": conditions["statistics"],
        },
    }


def select(
    trainer: Trainer,
    units: Units,
    criterion: Criterion | Scores,
    target: float,
    scope: Scope,
    batches: Sequence[Batch],
    conditions: Mapping[str, Any],
    generator: torch.Generator,
) -> Kept:
    """Score, unless that was done before, and return what is to be kept; see `prune`."""
    if callable(criterion):
        scored = _scored(batches, conditions)
        with (
            scoring_mode(trainer.model, conditions["statistics"] == "batch"),
            scoring_of(trainer.task, trainer.model, units, scored, generator) as scoring,
        ):
            scores = criterion(scoring)
    else:
        scores = criterion
    if conditions["masks"] == "inverted":
        scores = {name: -each for name, each in scores.items()}
    return units.select(scores, target, scope, conditions["floor"])


def _scored(batches: Sequence[Batch], conditions: Mapping[str, Any]) -> Sequence[Batch]:
    """Return the batches that are scored on."""
    return batches[: len(batches) // 2] if conditions["scoring"] == "half" else batches


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
        with scoring_mode(model, batch_statistics=False), magnitudes(model, variables):
            yield partial(task.flow, model)

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
        sha.update(tensor.detach().cpu().numpy().tobytes())
    return sha.hexdigest()[:16]
