"""What happens in a run, seen from outside: for the tests of the rules of fairness."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn
from workbench import Workbench

from harness.prunable import prunable_weights
from harness.pruning.event import digest
from harness.record import Record
from harness.task import Batch, Split, Task
from harness.training import trainer as training
from harness.training.trainer import Trainer


@dataclass(frozen=True)
class Step:
    """One optimiser step."""

    position: int
    rate: tuple[float, float | None]
    """Learning rate and momentum."""
    batch: str
    randomness: str
    """Of dropout, say."""
    revived: int
    """Weights that are removed and not zero after the step."""


@dataclass(frozen=True)
class Evaluation:
    """One look at data that are not for training."""

    split: Split
    steps: int
    """How many optimiser steps came before."""
    revived: int


@dataclass
class Observation:
    """What a run did, in its order."""

    steps: list[Step] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    scored: list[str] = field(default_factory=list)
    """The batch of each loss that was computed for scoring."""
    record: Record = field(default_factory=dict)


def revived(trainer: Trainer) -> int:
    """Count the weights that are removed and not zero, in the model and its companions."""
    masks = {name: mask for units in trainer.units.values() for name, mask in units.masks().items()}
    networks = (trainer.model, *trainer.stream.companions)
    return sum(
        int(prunable_weights(network)[name][~mask].count_nonzero())
        for network in networks
        for name, mask in masks.items()
    )


def fingerprint_of(batch: Batch) -> str:
    points, labels = batch
    return digest({"points": points, "labels": labels})


def observe(bench: Workbench, pruner: str, **request: Any) -> Observation:
    """Carry out a run and return what was seen of it."""
    seen = Observation()
    trainers: list[Trainer] = []
    step, update, points = Trainer.step, training.update, bench.points
    scoring_loss, evaluate = points.scoring_loss, points.evaluate

    def watched_step(trainer: Trainer, *arguments: Any) -> None:
        trainers[:] = [trainer]
        step(trainer, *arguments)

    def watched_update(
        task: Task, model: nn.Module, optimiser: torch.optim.Optimizer, *arguments: Any
    ) -> torch.Tensor:
        randomness = digest({"state": torch.get_rng_state()})
        (trainer,) = trainers
        loss = update(task, model, optimiser, *arguments)
        group = optimiser.param_groups[0]
        momentum = group["betas"][0] if "betas" in group else group["momentum"]
        seen.steps.append(
            Step(
                trainer.position,
                (group["lr"], momentum),
                fingerprint_of(arguments[1]),
                randomness,
                revived(trainer),
            )
        )
        return loss

    def watched_scoring_loss(task: Task, model: nn.Module, batch: Batch) -> torch.Tensor:
        seen.scored.append(fingerprint_of(batch))
        return scoring_loss(task, model, batch)

    def watched_evaluate(task: Task, model: nn.Module, split: Split) -> dict[str, float]:
        seen.evaluations.append(Evaluation(split, len(seen.steps), revived(trainers[0])))
        return evaluate(task, model, split)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", watched_step)
        patch.setattr(training, "update", watched_update)
        patch.setattr(points, "scoring_loss", watched_scoring_loss)
        patch.setattr(points, "evaluate", watched_evaluate)
        seen.record = bench.run(pruner, **request)
    return seen
