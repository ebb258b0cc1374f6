"""A plug-in: a task that trains in milliseconds, for the tests of the engine.

It has everything that the rules of fairness concern: BatchNorm, dropout, augmentation, and a
companion network that follows the trained one.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.data.description import DataDescription
from harness.prunable import prunable_weights
from harness.registry import task
from harness.task import Batch, ShuffledBatches, Split, Task, scoring_indices

FEATURES, HIDDEN, CLASSES = 6, 10, 2
WEIGHTS = FEATURES * HIDDEN + HIDDEN * CLASSES
"""Prunable weights of the network: 60 in the first layer, 20 in the second."""
SAMPLES = 40
"""In each part."""

MEETING = "POINTS_MEETING"
"""The environment variable that names a folder in which a process waits for a test; see `meet`."""


def describe(profile: str, settings: Mapping[str, Any], data_folder: Path) -> DataDescription:
    """Return the description of the data."""
    return DataDescription(settings["source"], "random points", "0" * 64)


def meet(place: str) -> None:
    """Announce to a test that this process has reached a place, and wait there for the test.

    Nothing happens unless the environment names a folder. The file ``PLACE`` in it announces the
    process; the file ``PLACE-over``, which the test writes, lets it proceed.
    """
    if MEETING in os.environ:
        folder = Path(os.environ[MEETING])
        (folder / place).touch()
        while not (folder / f"{place}-over").exists():
            time.sleep(0.01)


class Followed(ShuffledBatches):
    """Shuffled batches, and a companion network that slowly follows the trained one."""

    def __init__(self, points: Points, model: nn.Module, seed: int) -> None:
        super().__init__(SAMPLES, points.settings["batch_size"], seed, points.augmented)
        self.companions = [copy.deepcopy(model)]

    def next(self, model: nn.Module) -> Batch:
        """Return the next batch, and let the companion follow."""
        pairs = zip(self._weights(), prunable_weights(model).values(), strict=True)
        for behind, ahead in pairs:
            behind.data.lerp_(ahead.data, 0.1)
        return super().next(model)

    def state(self) -> dict[str, Any]:
        """Return the position in the data, and the companion's weights."""
        return super().state() | {"companion": self.companions[0].state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Return to an earlier state."""
        super().restore(state)
        self.companions[0].load_state_dict(state["companion"])

    def _weights(self) -> list[nn.Parameter]:
        return list(prunable_weights(self.companions[0]).values())


@task(
    "points",
    title="Random points",
    metric="accuracy",
    goal="max",
    data=":describe",
    settings={
        "epochs": 4,
        "batch_size": 8,
        "optimiser": "sgd",
        "learning_rate": 0.1,
        "weight_decay": 0.01,
        "clip": 10.0,
        "source": "synthetic",
    },
    profiles={"smoke": {}, "embedded": {}},
    choices={"source": ("official", "unofficial", "real", "synthetic")},
    sparsity=0.8,
)
class Points(Task):
    """Classify points by the side of a plane that they lie on."""

    outputs_are = "logits"

    def __init__(
        self, settings: Mapping[str, Any], data_folder: Path, device: torch.device
    ) -> None:
        super().__init__(settings, data_folder, device)
        points = torch.randn(3, SAMPLES, FEATURES, generator=torch.Generator().manual_seed(0))
        labels = (points.sum(-1) > 0).long()
        parts = zip(points, labels, strict=True)
        self.parts = dict(zip(("train", "validation", "test"), parts, strict=True))
        self.steps_per_epoch = -(-SAMPLES // settings["batch_size"])

    def model(self) -> nn.Module:
        """Return the network."""
        return nn.Sequential(
            nn.Linear(FEATURES, HIDDEN),
            nn.BatchNorm1d(HIDDEN),
            nn.Tanh(),
            nn.Dropout(0.25),
            nn.Linear(HIDDEN, CLASSES),
        )

    def stream(self, model: nn.Module, seed: int) -> Followed:
        """Return shuffled batches of points, each moved a little."""
        return Followed(self, model, seed)

    def augmented(self, numbers: Tensor, generator: torch.Generator) -> Batch:
        """Return a batch of points, each moved a little."""
        points, labels = self._batch(numbers)
        return points + 0.1 * torch.randn(points.shape, generator=generator), labels

    def _batch(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        points, labels = self.parts["train"]
        return points[numbers], labels[numbers]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the cross-entropy."""
        points, labels = batch
        return F.cross_entropy(model(points), labels)

    def scoring_batches(self, seed: int) -> list[Batch]:
        """Return five batches of points that are not moved."""
        size = self.settings["batch_size"]
        return [self._batch(numbers) for numbers in scoring_indices(SAMPLES, size, seed)]

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Return the accuracy, and the cross-entropy."""
        meet("evaluating")
        points, labels = self.parts[split]
        logits = model(points)
        return {
            "accuracy": 100 * float((logits.argmax(1) == labels).double().mean()),
            "cross_entropy": float(F.cross_entropy(logits, labels)),
        }

    def baseline(self) -> float:
        """Return the accuracy of always predicting class 1."""
        return 100 * float(self.parts["test"][1].double().mean())

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the logits."""
        logits: Tensor = model(batch[0])
        return logits

    def inference(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the predicted sides; only the final measurement asks for a whole batch of them."""
        if len(batch[0]) > 1:
            meet("measuring")
        return self.outputs(model, batch).argmax(1)

    def one_sample(self) -> Batch:
        """Return one training point."""
        return self._batch(torch.zeros(1, dtype=torch.long))

    def flow(self, model: nn.Module) -> Tensor:
        """Return the summed logits of a point of ones."""
        total: Tensor = model(torch.ones(1, FEATURES, dtype=torch.double)).sum()
        return total
