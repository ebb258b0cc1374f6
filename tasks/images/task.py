"""The tasks CIFAR-10, CIFAR-100 and Tiny-ImageNet, and the task of a user's own folder.

The paper profile deviates from the EarlyCroP repository in three points: a tenth of the training
images is kept for validation; CIFAR-100 is rotated with bilinear interpolation instead of nearest
pixels; Tiny-ImageNet is moved by 4 pixels at its own resolution of 64, as in GraSP
(arXiv:2002.07376), instead of cropped at random and enlarged to 224.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from harness.registry import task
from tasks.images import data, folder, settings, transforms
from tasks.images.classification import ColourImages, Images, images_of_parts, percentage
from tasks.images.settings import FolderSettings, PhotographSettings


class Photographs(ColourImages):
    """Photographs or drawings in several classes; the metric is the top-1 accuracy in percent."""

    settings: PhotographSettings
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
        self.classes, self.side = self.data_set.classes, settings.resolution
        self.mean, self.deviation = self.data_set.mean, self.data_set.deviation
        self._require_sizes()

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
    """Ten classes of 32x32 pixels, 45,000 training images; embedded: drawings of ten shapes."""

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
    """100 classes of 32x32 pixels, 45,000 training images; embedded: shapes in ten colours."""

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
    """200 classes of 64x64 pixels, 90,000 training images; embedded: shapes, plain or striped.

    The official validation images are the test images; a tenth of the training images is for
    validation.
    """

    data_set = data.TINY_IMAGENET


@task(
    "images",
    title="A folder of images, ResNet18",
    metric="accuracy",
    goal="max",
    data="tasks.images.folder:describe",
    settings=settings.FOLDER,
    profiles=settings.FOLDER_PROFILES,
)
class FolderImages(ColourImages):
    """A folder of images by class, as ``folder=DIR`` names it; five drawn shapes without one."""

    settings: FolderSettings

    def __init__(self, settings: FolderSettings, data_folder: Path, device: torch.device) -> None:
        arrays, numbers, names = folder.read(settings, data_folder)
        images, labels = (
            torch.from_numpy(arrays[name]).to(device) for name in ("images", "labels")
        )
        parts = {
            part: Images(images, labels, torch.from_numpy(each).to(device))
            for part, each in numbers.items()
        }
        super().__init__(settings, data_folder, device, parts)
        self.classes, self.side = len(names), settings.resolution
        self.mean, self.deviation = self._normalisation(parts["train"])
        self._require_sizes()

    def _normalisation(self, train: Images) -> tuple[Sequence[float], Sequence[float]]:
        match self.settings.normalisation:
            case "imagenet":
                return transforms.IMAGENET_MEAN, transforms.IMAGENET_DEVIATION
            case "none":
                return (0.0,) * 3, (1.0,) * 3
        sums, squares = torch.zeros(2, 3, dtype=torch.double, device=self.device)
        for chosen in train.numbers.split(self.evaluation_batch):
            values = self.scaled(train.values[chosen]).double()
            sums += values.mean((2, 3)).sum(0)
            squares += values.square().mean((2, 3)).sum(0)
        mean = sums / len(train.numbers)
        deviation = (squares / len(train.numbers) - mean.square()).clamp(min=1e-6).sqrt()
        return mean.tolist(), deviation.tolist()

    def metrics(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """Return the accuracy in percent."""
        return {"accuracy": percentage(logits.argmax(1) == labels)}
