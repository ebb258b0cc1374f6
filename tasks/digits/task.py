"""Classify handwritten digits with a small ResNet18."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.registry import task
from harness.task import Batch, ShuffledBatches, Split, Task, scoring_indices
from tasks.digits import data
from tasks.digits.model import resnet18


@task(
    "digits",
    title="Handwritten digits, ResNet18",
    metric="accuracy",
    goal="max",
    data="tasks.digits.data:describe",
    settings={
        "epochs": 20,
        "batch_size": 48,
        "optimiser": "adam",
        "learning_rate": 2e-3,
        "weight_decay": 5e-5,
        "clip": 10.0,
        "width": 32,
        "shift": 0,
    },
    profiles={
        "smoke": {"epochs": 2, "batch_size": 256, "width": 4},
        "embedded": {},
    },
)
class Digits(Task):
    """Ten classes, 898 training images, accuracy in percent."""

    def __init__(
        self, settings: Mapping[str, Any], data_folder: Path, device: torch.device
    ) -> None:
        super().__init__(settings, data_folder, device)
        images, labels = data.read()
        self._parts = {
            name: (
                torch.from_numpy(images[numbers]).div(16).to(device),
                torch.from_numpy(labels[numbers]).to(device),
            )
            for name, numbers in data.split().items()
        }
        train = self._parts["train"][0]
        mean, deviation = train.mean(), train.std()
        for images_of_part, _ in self._parts.values():
            images_of_part.sub_(mean).div_(deviation)
        self._border = float(-mean / deviation)
        self.steps_per_epoch = -(-len(train) // settings["batch_size"])

    def model(self) -> nn.Module:
        """Return the network."""
        return resnet18(self.settings["width"], channels=1, classes=10)

    def stream(self, model: nn.Module, seed: int) -> ShuffledBatches:
        """Return shuffled batches, images moved by at most ``shift`` pixels."""
        return ShuffledBatches(data.TRAIN, self.settings["batch_size"], seed, self._augmented)

    def _augmented(self, numbers: Tensor, generator: torch.Generator) -> Batch:
        images, labels = self._batch(numbers)
        shift = self.settings["shift"]
        padded = F.pad(images, (shift,) * 4, value=self._border)
        down, right = torch.randint(0, 2 * shift + 1, (2, len(images)), generator=generator)
        pixels = torch.arange(8)
        rows = (down[:, None] + pixels)[:, :, None].to(self.device)
        columns = (right[:, None] + pixels)[:, None, :].to(self.device)
        picture = torch.arange(len(images), device=self.device)[:, None, None]
        return padded[picture, 0, rows, columns].unsqueeze(1), labels

    def _batch(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        images, labels = self._parts["train"]
        numbers = numbers.to(self.device)
        return images[numbers], labels[numbers]

    def scoring_batches(self, seed: int) -> list[Batch]:
        """Return five batches of unmoved training images."""
        size = self.settings["batch_size"]
        return [self._batch(numbers) for numbers in scoring_indices(data.TRAIN, size, seed)]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the cross-entropy."""
        images, labels = batch
        return F.cross_entropy(model(images), labels)

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Return the accuracy in percent, and the cross-entropy."""
        images, labels = self._parts[split]
        logits = model(images)
        return {
            "accuracy": 100 * float((logits.argmax(1) == labels).double().mean()),
            "cross_entropy": float(F.cross_entropy(logits, labels)),
        }

    def baseline(self) -> float:
        """Return the test accuracy of the class that is most frequent in training."""
        most_frequent = self._parts["train"][1].mode().values
        return 100 * float((self._parts["test"][1] == most_frequent).double().mean())

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the logits (images, 10)."""
        logits: Tensor = model(batch[0])
        return logits

    def inference(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the predicted classes."""
        return self.outputs(model, batch).argmax(1)

    def one_sample(self) -> Batch:
        """Return one training image."""
        return self._batch(torch.zeros(1, dtype=torch.long))

    def flow(self, model: nn.Module) -> Tensor:
        """Return the summed logits of an image of ones."""
        total: Tensor = model(torch.ones(1, 1, 8, 8, device=self.device, dtype=torch.double)).sum()
        return total
