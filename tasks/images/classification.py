"""What the three tasks of image classification have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from harness.errors import RequestError
from harness.task import Batch, ShuffledBatches, Split, Task, scoring_indices
from tasks.images import augmentation
from tasks.images.data import DataSet, Part, split
from tasks.images.networks import NETWORKS

SMALLEST = 32
"""Pixels of a side, which VGG16 halves five times."""

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
        numbers = split(len(train[0]), len(test[0]), settings)
        self._sources: dict[Part, tuple[Tensor, Tensor]] = {
            "train": train,
            "validation": train,
            "test": test,
        }
        self._numbers = {part: torch.from_numpy(numbers[part]).to(device) for part in numbers}
        self._mean = torch.tensor(self.data_set.mean, device=device)[:, None, None]
        self._deviation = torch.tensor(self.data_set.deviation, device=device)[:, None, None]
        self._require_sizes()
        self.steps_per_epoch = -(-len(self._numbers["train"]) // settings["batch_size"])

    def _require_sizes(self) -> None:
        resolution, size = self.settings["resolution"], self.settings["batch_size"]
        if resolution < SMALLEST:
            raise RequestError(
                f"resolution={resolution}: the networks need at least {SMALLEST} pixels"
            )
        if len(self._numbers["train"]) % size == 1 or size == 1:
            raise RequestError(
                f"batch_size={size}: leaves one of {len(self._numbers['train']):,} training images "
                "alone in a batch, which batch normalisation cannot use"
            )

    def model(self) -> nn.Module:
        """Return the network that the setting ``model`` names."""
        build = NETWORKS[self.settings["model"]]
        return build(width=self.settings["width"], classes=self.data_set.classes)

    def stream(self, model: nn.Module, seed: int) -> ShuffledBatches:
        """Return shuffled batches of augmented images."""
        samples = len(self._numbers["train"])
        return ShuffledBatches(samples, self.settings["batch_size"], seed, self._augmented)

    def _augmented(self, indices: Tensor, generator: Generator) -> Batch:
        if self.settings["augmentation"] == "off":
            return self._batch("train", indices)
        images, labels = self._bytes("train", indices)
        images = augmentation.shifted(images, self.settings["shift"], generator)
        images = augmentation.flipped(images, generator)
        values = images.float().div(255)
        if self.settings["rotation"] > 0:
            values = augmentation.rotated(values, self.settings["rotation"], generator)
        return self._prepared(values), labels

    def _bytes(self, part: Part, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return images of a part as they are stored, and their labels."""
        numbers = self._numbers[part][indices.to(self.device)]
        images, labels = self._sources[part]
        return images[numbers], labels[numbers]

    def _batch(self, part: Part, indices: Tensor) -> tuple[Tensor, Tensor]:
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
        answers = [(model(images), labels) for images, labels in self.batches(split)]
        logits, labels = (torch.cat(parts) for parts in zip(*answers, strict=True))
        ranked = logits.topk(5).indices == labels[:, None]
        return {
            "top1_accuracy": 100 * float(ranked[:, 0].double().mean()),
            "top5_accuracy": 100 * float(ranked.any(1).double().mean()),
            "cross_entropy": float(F.cross_entropy(logits, labels)),
        }

    def batches(self, part: Part) -> Iterator[tuple[Tensor, Tensor]]:
        """Go through a part in its order: images as the network gets them, and their labels."""
        for indices in torch.arange(len(self._numbers[part])).split(EVALUATION_BATCH):
            yield self._batch(part, indices)

    def baseline(self) -> float:
        """Return the test accuracy of the class that is most frequent in training."""
        most_frequent = self._labels("train").mode().values
        return 100 * float((self._labels("test") == most_frequent).double().mean())

    def _labels(self, part: Part) -> Tensor:
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
