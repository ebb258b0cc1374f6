"""Two spirals in the plane, classified by an MLP."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from harness.data.description import DataDescription
from harness.registry import task
from harness.task import Batch, ShuffledBatches, Split, Task, scoring_indices

SIZES = {"train": 600, "validation": 200, "test": 200}


def describe(profile: str, settings: dict[str, Any], data_folder: Path) -> DataDescription:
    """Describe the data; the fingerprint must change whenever the data change."""
    return DataDescription("synthetic", "two spirals, version 1", "two-spirals-1")


def points(part: str) -> tuple[Tensor, Tensor]:
    """Return points of the plane (samples, 2) and their classes (samples,)."""
    generator = Generator().manual_seed(list(SIZES).index(part))
    samples = SIZES[part]
    classes = torch.arange(samples) % 2
    radius = torch.rand(samples, generator=generator).sqrt()
    angle = 3 * math.pi * radius + math.pi * classes
    plane = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    return plane + 0.02 * torch.randn(samples, 2, generator=generator), classes


@task(
    "spirals",
    title="Two spirals, MLP",
    metric="accuracy",
    goal="max",
    data=":describe",
    settings={
        "epochs": 30,
        "batch_size": 50,
        "optimiser": "adam",
        "learning_rate": 5e-3,
        "weight_decay": 0.0,
        "clip": 10.0,
        "hidden": 64,
    },
    profiles={"smoke": {"epochs": 4, "hidden": 16}, "embedded": {}},
    sparsity=0.8,
)
class Spirals(Task):
    """Two classes of points in the plane; the metric is the accuracy in percent."""

    outputs_are = "logits"  # as which a network learns from a teacher

    def __init__(self, settings: dict[str, Any], data_folder: Path, device: torch.device) -> None:
        super().__init__(settings, data_folder, device)
        self._parts = {part: tuple(tensor.to(device) for tensor in points(part)) for part in SIZES}
        self.steps_per_epoch = -(-SIZES["train"] // settings["batch_size"])

    def model(self) -> nn.Module:
        """Return the network: two hidden layers, and the logits of the classes as output."""
        hidden = self.settings["hidden"]
        return nn.Sequential(
            nn.Linear(2, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 2),
        )

    def stream(self, model: nn.Module, seed: int) -> ShuffledBatches:
        """Return shuffled batches."""
        size = self.settings["batch_size"]
        return ShuffledBatches(SIZES["train"], size, seed, lambda numbers, _: self._batch(numbers))

    def _batch(self, numbers: Tensor) -> Batch:
        plane, classes = self._parts["train"]
        return plane[numbers.to(self.device)], classes[numbers.to(self.device)]

    def scoring_batches(self, seed: int) -> list[Batch]:
        """Return five training batches."""
        size = self.settings["batch_size"]
        return [self._batch(n) for n in scoring_indices(SIZES["train"], size, seed)]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the cross-entropy."""
        return F.cross_entropy(model(batch[0]), batch[1])

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Return the accuracy in percent."""
        plane, classes = self._parts[split]
        return {"accuracy": 100 * float((model(plane).argmax(1) == classes).double().mean())}

    def baseline(self) -> float:
        """Return the accuracy of guessing."""
        return 50.0

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the logits (samples, 2)."""
        logits: Tensor = model(batch[0])
        return logits

    def inference(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the predicted classes."""
        return self.outputs(model, batch).argmax(1)

    def one_sample(self) -> Batch:
        """Return one training sample."""
        return self._batch(torch.zeros(1, dtype=torch.long))

    def flow(self, model: nn.Module) -> Tensor:
        """Return the summed logits for a point of ones."""
        total: Tensor = model(torch.ones(1, 2, dtype=torch.double, device=self.device)).sum()
        return total
