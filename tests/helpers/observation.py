"""What happens in a run, observed from outside, for the tests of the rules of fairness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from harness.costs.training_operations import TrainingOperations, Work
from harness.prunable import prunable_weights
from harness.pruning.event import digest
from harness.task import Batch, Split, Task
from harness.training.trainer import Trainer
from tests.helpers.workbench import Workbench


@dataclass(frozen=True)
class Step:
    """One optimizer step."""

    position: int
    rate: tuple[float, float | None]
    """Learning rate and momentum."""
    batch: str
    """A hash of the training batch."""
    randomness: str
    """A hash of the state of torch's generator, which dropout, for example, draws from."""
    revived: int
    """Removed weights that are not zero after the step."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation on data that are not for training."""

    split: Split
    steps: int
    """Optimizer steps taken before."""
    revived: int


@dataclass
class Observation:
    """What a run did, in order."""

    steps: list[Step] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    scored: list[str] = field(default_factory=list)
    """A hash of the batch of each loss that was computed for scoring."""
    record: Any = None


def revived(trainer: Trainer) -> int:
    """Count the removed weights that are not zero, in the model and its companions."""
    masks = {name: mask for units in trainer.units.values() for name, mask in units.masks().items()}
    networks = (trainer.model, *trainer.stream.companions)
    return sum(
        int(prunable_weights(network)[name][~mask].count_nonzero())
        for network in networks
        for name, mask in masks.items()
    )


def fingerprint_of(batch: Batch) -> str:
    """Return a hash of a batch of points."""
    points, labels = batch
    return digest({"points": points, "labels": labels})


def observe(bench: Workbench, pruner: str, **request: Any) -> Observation:
    """Carry out a run and return what was seen of it."""
    watcher = _Watcher(bench.points)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", watcher.step())
        patch.setattr(bench.points, "loss", watcher.loss())
        patch.setattr(bench.points, "scoring_loss", watcher.scoring_loss())
        patch.setattr(bench.points, "evaluate", watcher.evaluate())
        for name in ("step", "scoring"):
            patch.setattr(TrainingOperations, name, watcher.counting(name))
        watcher.seen.record = bench.run(pruner, **request)
    return watcher.seen


class _Watcher:
    """Stands between the engine and a task, and between a run and its trainer.

    Args:
        task: the class of the task.
    """

    def __init__(self, task: type[Task]) -> None:
        self.seen = Observation()
        self._task = task
        self._trainer: Trainer | None = None
        self._is_training = self._is_counting = False
        self._batch = self._randomness = ""
        """Of the training loss that was computed last."""

    def step(self) -> Callable[..., Batch]:
        """Return `Trainer.step`, watched."""
        step = Trainer.step

        def watched(trainer: Trainer, *arguments: Any, **options: Any) -> Batch:
            self._trainer, self._is_training, position = trainer, True, trainer.position
            batch = step(trainer, *arguments, **options)
            self._is_training = False
            group = trainer.optimiser.param_groups[0]
            momentum = group["betas"][0] if "betas" in group else group["momentum"]
            self.seen.steps.append(
                Step(
                    position,
                    (group["lr"], momentum),
                    self._batch,
                    self._randomness,
                    revived(trainer),
                )
            )
            return batch

        return watched

    def loss(self) -> Callable[[Task, nn.Module, Batch], Tensor]:
        """Return `Task.loss`, watched while a step is taken."""
        loss = self._task.loss

        def watched(task: Task, model: nn.Module, batch: Batch) -> Tensor:
            if self._is_training:
                self._batch = fingerprint_of(batch)
                self._randomness = digest({"state": torch.get_rng_state()})
            return loss(task, model, batch)

        return watched

    def scoring_loss(self) -> Callable[[Task, nn.Module, Batch], Tensor]:
        """Return `Task.scoring_loss`, watched."""
        scoring_loss = self._task.scoring_loss

        def watched(task: Task, model: nn.Module, batch: Batch) -> Tensor:
            if not self._is_counting:
                self.seen.scored.append(fingerprint_of(batch))
            return scoring_loss(task, model, batch)

        return watched

    def counting(self, name: str) -> Callable[..., Work]:
        """Return a method of `TrainingOperations`, whose losses nothing is scored by."""
        count = getattr(TrainingOperations, name)

        def watched(*arguments: Any) -> Work:
            self._is_counting = True
            try:
                return cast(Work, count(*arguments))
            finally:
                self._is_counting = False

        return watched

    def evaluate(self) -> Callable[[Task, nn.Module, Split], dict[str, float]]:
        """Return `Task.evaluate`, watched."""
        evaluate = self._task.evaluate

        def watched(task: Task, model: nn.Module, split: Split) -> dict[str, float]:
            assert self._trainer is not None, "evaluated before the first step"
            steps = len(self.seen.steps)
            self.seen.evaluations.append(Evaluation(split, steps, revived(self._trainer)))
            return evaluate(task, model, split)

        return watched
