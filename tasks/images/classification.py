"""Image classification: what its tasks share, from batches to metrics."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from harness.data.decoded import Array
from harness.errors import RequestError
from harness.foreign_models import build_image_model, image_channels, is_foreign, load_weights
from harness.task import Batch, ShuffledBatches, Split, Task, scoring_indices
from tasks.images import transforms
from tasks.images.data import SOURCES, Part
from tasks.images.networks import NETWORKS
from tasks.images.settings import ColourSettings, ImageSettings
from tasks.images.vit import vit

SMALLEST = 32
"""Pixels of a side for a network of this project; VGG16 halves it five times."""


@dataclass(frozen=True)
class Images:
    """Images as they are stored, and their labels."""

    values: Tensor
    """(count, channels, height, width), from 0 to the largest value."""
    labels: Tensor
    """(count,)"""
    numbers: Tensor
    """Which of them belong to the part."""


def images_of_parts(
    arrays: Mapping[str, Array], numbers: Mapping[Part, npt.NDArray[np.int64]], device: torch.device
) -> dict[Part, Images]:
    """Return the images of each part, on a device.

    Args:
        arrays: images and labels of the published parts, as in `tasks.images.data.ARRAYS`.
        numbers: which of them belong to each part.
        device: the device of the images.
    """
    tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    return {
        part: Images(
            tensors[f"{source}_images"],
            tensors[f"{source}_labels"],
            torch.from_numpy(numbers[part]).to(device),
        )
        for part, source in SOURCES.items()
    }


class ImageClassification(Task):
    """Images in several classes.

    The stored images lie on the device, where batches are put together and augmented: an
    accelerator never waits for this process, and a CPU copies nothing twice.

    Args:
        settings: all settings of the profile.
        data_folder: the folder that tasks read data from.
        device: the device of batches and models.
        parts: the images of each part.
    """

    settings: ImageSettings
    outputs_are = "logits"
    classes: int
    side: int
    """Pixels of a side of the images that the network takes."""
    channels: ClassVar[int] = 3
    """Channels of the stored images."""
    largest_value: ClassVar[int]
    """The largest value of a stored pixel."""
    evaluation_batch: ClassVar[int]
    """Images that are evaluated at a time."""

    def __init__(
        self,
        settings: ImageSettings,
        data_folder: Path,
        device: torch.device,
        parts: Mapping[Part, Images],
    ) -> None:
        super().__init__(settings, data_folder, device)
        self._parts = parts
        self._samples = len(parts["train"].numbers)
        self.steps_per_epoch = -(-self._samples // settings.batch_size)

    def model(self) -> nn.Module:
        """Return the network that the setting ``model`` names, with the weights of ``pretrained``.

        Raises:
            RequestError: it does not fit the images and classes, or the weights are of another one.
        """
        named: str = self.settings["model"]
        if is_foreign(named):
            network = build_image_model(
                named,
                classes=self.classes,
                channels=image_channels(named, self.channels),
                side=self.side,
                data_folder=self.data_folder,
            )
            if any(isinstance(module, _BatchNorm) for module in network.modules()):
                self._require_no_single_image()
        else:
            network = self.own_model()
        if weights := self.settings.pretrained:
            head = self.settings.head
            load_weights(network, weights, self.data_folder, classes=self.classes, head=head)
        return network

    @abstractmethod
    def own_model(self) -> nn.Module:
        """Return the network of this project that the setting ``model`` names."""

    def _require_no_single_image(self) -> None:
        """Refuse a batch of one training image.

        Raises:
            RequestError: there is one.
        """
        size = self.settings.batch_size
        if self._samples % size == 1 or size == 1:
            raise RequestError(
                f"batch_size={size}: leaves one of {self._samples:,} training images alone in a "
                "batch, which batch normalisation cannot use"
            )

    @abstractmethod
    def augmented(self, stored: Tensor, generator: Generator) -> Tensor:
        """Return randomly changed images as the network takes them.

        Args:
            stored: images as they are stored (count, channels, height, width).
            generator: draws the changes.
        """

    @abstractmethod
    def prepared(self, values: Tensor) -> Tensor:
        """Return images with values from 0 to 1 as the network takes them."""

    @abstractmethod
    def metrics(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """Return the metrics of logits (images, classes) for labels (images,)."""

    def scaled(self, stored: Tensor) -> Tensor:
        """Return stored images with values from 0 to 1."""
        return stored.float().div(self.largest_value)

    def stream(self, model: nn.Module, seed: int) -> ShuffledBatches:
        """Return shuffled batches of augmented images."""
        return ShuffledBatches(self._samples, self.settings.batch_size, seed, self._training_batch)

    def _training_batch(self, indices: Tensor, generator: Generator) -> Batch:
        stored, labels = self._stored("train", indices)
        return self.augmented(stored, generator), labels

    def _stored(self, part: Part, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return images of a part as they are stored, and their labels."""
        images = self._parts[part]
        numbers = images.numbers[indices.to(self.device)]
        return images.values[numbers], images.labels[numbers]

    def _batch(self, part: Part, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return images of a part as the network takes them, and their labels."""
        stored, labels = self._stored(part, indices)
        return self.prepared(self.scaled(stored)), labels

    def batches(self, part: Part) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield a part in its order: images as the network takes them, and their labels."""
        every = torch.arange(len(self._parts[part].numbers))
        for indices in every.split(self.evaluation_batch):
            yield self._batch(part, indices)

    def scoring_batches(self, seed: int) -> list[Batch]:
        """Return five batches of training images that are not augmented."""
        chosen = scoring_indices(self._samples, self.settings.batch_size, seed)
        return [self._batch("train", indices) for indices in chosen]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the cross-entropy."""
        images, labels = batch
        return F.cross_entropy(model(images), labels)

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Return the `metrics` of a split, and the cross-entropy."""
        answers = [(model(images), labels) for images, labels in self.batches(split)]
        logits, labels = (torch.cat(parts) for parts in zip(*answers, strict=True))
        return {
            **self.metrics(logits, labels),
            "cross_entropy": float(F.cross_entropy(logits, labels)),
        }

    def baseline(self) -> float:
        """Return the test accuracy of the most frequent class of the training images."""
        most_frequent = self._labels("train").mode().values
        return percentage(self._labels("test") == most_frequent)

    def _labels(self, part: Part) -> Tensor:
        return self._parts[part].labels[self._parts[part].numbers]

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the logits (images, classes)."""
        logits: Tensor = model(batch[0])
        return logits

    def inference(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the predicted classes (images,)."""
        return self.outputs(model, batch).argmax(1)

    def one_sample(self) -> Batch:
        """Return one training image."""
        return self._batch("train", torch.zeros(1, dtype=torch.long))


class ColourImages(ImageClassification):
    """Colour images of bytes, resized to ``resolution`` and normalised."""

    settings: ColourSettings
    largest_value = 255
    evaluation_batch = 500
    mean: Sequence[float]
    deviation: Sequence[float]
    """Standard deviation; like the mean, of red, green and blue, of 1."""

    def own_model(self) -> nn.Module:
        """Return the network of this project that the setting ``model`` names."""
        settings = self.settings
        if settings.model == "vit":
            return vit(settings.width, self.classes, side=self.side, blocks=settings.blocks)
        return NETWORKS[settings.model](width=settings.width, classes=self.classes)

    def _require_sizes(self) -> None:
        """Refuse what a network of this project cannot use; others are tried when they are built.

        Raises:
            RequestError: images are too small, or one would be alone in a batch.
        """
        if is_foreign(self.settings.model):
            return
        if self.side < SMALLEST:
            raise RequestError(
                f"resolution={self.side}: the networks need at least {SMALLEST} pixels"
            )
        self._require_no_single_image()

    def augmented(self, stored: Tensor, generator: Generator) -> Tensor:
        """Return moved, mirrored and rotated images, unless the settings say otherwise."""
        if not self.settings.augmentation:
            return self.prepared(self.scaled(stored))
        stored = transforms.shifted(stored, self.settings.shift, generator)
        values = self.scaled(transforms.flipped(stored, generator))
        if self.settings.rotation > 0:
            values = transforms.rotated(values, self.settings.rotation, generator)
        return self.prepared(values)

    def prepared(self, values: Tensor) -> Tensor:
        """Return images resized to the network's resolution, and normalised."""
        if self.side != values.shape[-1]:
            size = (self.side, self.side)
            values = F.interpolate(values, size, mode="bilinear", antialias=True)
        return transforms.normalised(values, self.mean, self.deviation)


class GreyImages(ImageClassification):
    """Grey images, normalised by the training images; the metric is the accuracy in percent."""

    channels = 1

    def __init__(
        self,
        settings: ImageSettings,
        data_folder: Path,
        device: torch.device,
        parts: Mapping[Part, Images],
    ) -> None:
        super().__init__(settings, data_folder, device, parts)
        train = self.scaled(parts["train"].values[parts["train"].numbers])
        self._mean, self._deviation = train.mean(), train.std()

    def augmented(self, stored: Tensor, generator: Generator) -> Tensor:
        """Return images moved by at most ``shift`` pixels."""
        return self.prepared(
            self.scaled(transforms.shifted(stored, self.settings.shift, generator))
        )

    def prepared(self, values: Tensor) -> Tensor:
        """Return images normalised by the mean and standard deviation of the training images.

        A network for colour images gets three equal channels.
        """
        images = (values - self._mean) / self._deviation
        channels = image_channels(self.settings["model"], self.channels)
        return images.expand(-1, channels, -1, -1)

    def metrics(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """Return the accuracy in percent."""
        return {"accuracy": percentage(logits.argmax(1) == labels)}


def percentage(is_right: Tensor) -> float:
    """Return the share of true values in percent."""
    return 100 * float(is_right.double().mean())
