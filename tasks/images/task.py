"""The tasks CIFAR-10, CIFAR-100 and Tiny-ImageNet.

The paper profile deviates from the EarlyCroP repository in three points: a tenth of the training
images is kept for validation; CIFAR-100 is rotated with bilinear interpolation instead of nearest
pixels; Tiny-ImageNet is moved by 4 pixels at its own resolution of 64, as in GraSP
(arXiv:2002.07376), instead of cropped at random and enlarged to 224.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from harness.errors import RequestError
from harness.registry import task
from tasks.images import data, settings, transforms
from tasks.images.classification import ImageClassification, images_of_parts, percentage
from tasks.images.networks import NETWORKS
from tasks.images.settings import PhotographSettings
from tasks.images.vit import vit

SMALLEST = 32
"""Pixels of a side; VGG16 halves it five times."""


class Photographs(ImageClassification):
    """Photographs or drawings in several classes; the metric is the top-1 accuracy in percent."""

    settings: PhotographSettings
    largest_value = 255
    evaluation_batch = 500
    data_set: ClassVar[data.DataSet]

    def __init__(
        self, settings: PhotographSettings, data_folder: Path, device: torch.device
    ) -> None:
        arrays = self.data_set.arrays(settings, data_folder)
        numbers = data.split(
            len(arrays["train_labels"]),
            len(arrays["test_labels"]),
            train_images=settings.train_images,
            test_images=settings.test_images,
        )
        super().__init__(settings, data_folder, device, images_of_parts(arrays, numbers, device))
        self._require_sizes()

    def _require_sizes(self) -> None:
        resolution, size = self.settings.resolution, self.settings.batch_size
        if resolution < SMALLEST:
            raise RequestError(
                f"resolution={resolution}: the networks need at least {SMALLEST} pixels"
            )
        if self._samples % size == 1 or size == 1:
            raise RequestError(
                f"batch_size={size}: leaves one of {self._samples:,} training images alone in a "
                "batch, which batch normalisation cannot use"
            )

    def model(self) -> nn.Module:
        """Return the network that the setting ``model`` names."""
        settings, classes = self.settings, self.data_set.classes
        if settings.model == "vit":
            return vit(settings.width, classes, side=settings.resolution, blocks=settings.blocks)
        return NETWORKS[settings.model](width=settings.width, classes=classes)

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
        size = self.settings.resolution
        if size != values.shape[-1]:
            values = F.interpolate(values, (size, size), mode="bilinear", antialias=True)
        return transforms.normalised(values, self.data_set.mean, self.data_set.deviation)

    def metrics(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """Return the top-1 and top-5 accuracy in percent."""
        ranked = logits.topk(5).indices == labels[:, None]
        return {
            "top1_accuracy": percentage(ranked[:, 0]),
            "top5_accuracy": percentage(ranked.any(1)),
        }


@task(
    "cifar10",
    title="CIFAR-10, ResNet18",
    metric="top1_accuracy",
    goal="max",
    data="tasks.images.data:describe_cifar10",
    settings=settings.CIFAR10,
    profiles=settings.CIFAR10_PROFILES,
    downloads=settings.CIFAR10_FILES,
    unpacked=settings.CIFAR10_UNPACKED,
)
class Cifar10(Photographs):
    """Ten classes of 32x32 pixels, 45,000 training images; in drawings, ten shapes."""

    data_set = data.CIFAR10


@task(
    "cifar100",
    title="CIFAR-100, ResNet18",
    metric="top1_accuracy",
    goal="max",
    data="tasks.images.data:describe_cifar100",
    settings=settings.CIFAR100,
    profiles=settings.CIFAR100_PROFILES,
    downloads=settings.CIFAR100_FILES,
    unpacked=settings.CIFAR100_UNPACKED,
)
class Cifar100(Photographs):
    """100 classes of 32x32 pixels, 45,000 training images; in drawings, shapes in ten colours."""

    data_set = data.CIFAR100


@task(
    "tiny_imagenet",
    title="Tiny-ImageNet, ResNet18",
    metric="top1_accuracy",
    goal="max",
    data="tasks.images.data:describe_tiny_imagenet",
    settings=settings.TINY_IMAGENET,
    profiles=settings.TINY_IMAGENET_PROFILES,
    downloads=settings.TINY_IMAGENET_FILES,
)
class TinyImageNet(Photographs):
    """200 classes of 64x64 pixels, 90,000 training images; in drawings, some shapes are striped.

    The official validation images are the test images; a tenth of the training images is for
    validation.
    """

    data_set = data.TINY_IMAGENET
