"""What the three tasks of image classification have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from harness.task import Batch, ShuffledBatches, Split, Task, scoring_indices
from tasks.images import augmentation
from tasks.images.data import DataSet, split
from tasks.images.networks import NETWORKS

EVALUATION_BATCH = 500
"""Images that are evaluated at a time."""


class ImageClassification(Task):
    """Photographs or drawings in several classes; the metric is the top-1 accuracy in percent.

    The images lie on the device as bytes, where batches are put together and augmented: an
    accelerator never waits for this process, and a CPU copies nothing twice.
    """

    data_set: ClassVar[DataSet]

    def __init__(
        self, settings: Mapping[str, Any], data_folder: Path, device: torch.device
    ) -> None:
        super().__init__(settings, data_folder, device)
        arrays = self.data_set.arrays(settings, data_folder)
        tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        train = tensors["train_images"], tensors["train_labels"]
        test = tensors["test_images"], tensors["test_labels"]
        self._sources = {"train": train, "validation": train, "test": test}
        self._numbers = {
            part: torch.from_numpy(numbers).to(device)
            for part, numbers in split(len(train[0]), len(test[0]), settings).items()
        }
        self._mean = torch.tensor(self.data_set.mean, device=device)[:, None, None]
        self._deviation = torch.tensor(self.data_set.deviation, device=device)[:, None, None]
        self.steps_per_epoch = -(-len(self._numbers["train"]) // settings["batch_size"])

    def model(self) -> nn.Module:
        """Return the network that the setting ``model`` names."""
        build = NETWORKS[self.settings["model"]]
        return build(width=self.settings["width"], classes=self.data_set.classes)

    def stream(self, model: nn.Module, seed: int) -> ShuffledBatches:
        """Return shuffled batches of augmented images."""
        samples = len(self._numbers["train"])
        return ShuffledBatches(samples, self.settings["batch_size"], seed, self._augmented)

    def _augmented(self, indices: Tensor, generator: Generator) -> Batch:
        images, labels = self._bytes("train", indices)
        images = augmentation.shifted(images, self.settings["shift"], generator)
        if self.settings["flip"]:
            images = augmentation.flipped(images, generator)
        values = images.float().div(255)
        if self.settings["rotation"] > 0:
            values = augmentation.rotated(values, self.settings["rotation"], generator)
        return self._prepared(values), labels

    def _bytes(self, part: str, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return images of a part as they are stored, and their labels."""
        numbers = self._numbers[part][indices.to(self.device)]
        images, labels = self._sources[part]
        return images[numbers], labels[numbers]

    def _batch(self, part: str, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return images of a part as the network gets them, and their labels."""
        images, labels = self._bytes(part, indices)
        return self._prepared(images.float().div(255)), labels

    def _prepared(self, values: Tensor) -> Tensor:
        """Return values from 0 to 1 in the network's resolution and scale."""
        size = self.settings["resolution"]
        if size != values.shape[-1]:
            values = F.interpolate(values, (size, size), mode="bilinear", antialias=True)
        return (values - self._mean) / self._deviation

    def scoring_batches(self, seed: int) -> list[Batch]:
        """Return five batches of training images as they are."""
        samples, size = len(self._numbers["train"]), self.settings["batch_size"]
        return [self._batch("train", indices) for indices in scoring_indices(samples, size, seed)]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the cross-entropy."""
        images, labels = batch
        return F.cross_entropy(model(images), labels)

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Return the top-1 and top-5 accuracy in percent, and the cross-entropy."""
        logits, labels = self._answers(model, split)
        ranked = logits.topk(5).indices == labels[:, None]
        return {
            "top1_accuracy": 100 * float(ranked[:, 0].double().mean()),
            "top5_accuracy": 100 * float(ranked.any(1).double().mean()),
            "cross_entropy": float(F.cross_entropy(logits, labels)),
        }

    def _answers(self, model: nn.Module, part: Split) -> tuple[Tensor, Tensor]:
        """Return the logits (images, classes) of a whole part, and its labels."""
        logits, labels = [], []
        for indices in torch.arange(len(self._numbers[part])).split(EVALUATION_BATCH):
            images, labels_of_batch = self._batch(part, indices)
            logits.append(model(images))
            labels.append(labels_of_batch)
        return torch.cat(logits), torch.cat(labels)

    def baseline(self) -> float:
        """Return the test accuracy of the class that is most frequent in training."""
        most_frequent = self._labels("train").mode().values
        return 100 * float((self._labels("test") == most_frequent).double().mean())

    def _labels(self, part: str) -> Tensor:
        return self._sources[part][1][self._numbers[part]]

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the logits (images, classes)."""
        logits: Tensor = model(batch[0])
        return logits

    def inference(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the predicted classes."""
        return self.outputs(model, batch).argmax(1)

    def one_sample(self) -> Batch:
        """Return one training image."""
        return self._batch("train", torch.zeros(1, dtype=torch.long))

    def flow(self, model: nn.Module) -> Tensor:
        """Return the summed logits of an image of ones."""
        size = self.settings["resolution"]
        ones = torch.ones(1, 3, size, size, device=self.device, dtype=torch.double)
        total: Tensor = model(ones).sum()
        return total
