"""The tasks MNIST and Fashion-MNIST.

The paper profile is the recipe of the MNIST experiments of SNIP (Lee et al. 2019,
arXiv:1810.02340) but for three points. The learning rate is 0.01. The paper states 0.1 with a
momentum of 0.9, with which LeNet-5-Caffe diverges; the authors' code uses 0.1 without momentum,
which takes steps of the same length as 0.01 with momentum. The rate follows the condition
``schedule`` instead of falling to a tenth every 25,000 steps. Training takes 250 epochs (135,000
steps); the paper does not say how long it takes.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from harness.registry import task
from tasks.images.classification import GreyImages, images_of_parts
from tasks.images.vit import vit
from tasks.mnist import data, settings
from tasks.mnist.networks import CLASSES, NETWORKS, SIDE
from tasks.mnist.settings import MnistSettings

USUAL_VIT_WIDTH = 16
"""Features of each head of a vision transformer."""


class MnistImages(GreyImages):
    """Grey images of 28x28 pixels in ten classes; the metric is the accuracy in percent."""

    settings: MnistSettings
    largest_value = data.LARGEST_VALUE
    evaluation_batch = 1000
    classes, side = CLASSES, data.SIDE
    data_set: ClassVar[data.DataSet]

    def __init__(self, settings: MnistSettings, data_folder: Path, device: torch.device) -> None:
        arrays, numbers = self.data_set.arrays(settings, data_folder)
        super().__init__(settings, data_folder, device, images_of_parts(arrays, numbers, device))
        if settings.model == "resnet18":
            self._require_no_single_image()

    def own_model(self) -> nn.Module:
        """Return the network that the setting ``model`` names."""
        settings = self.settings
        if settings.model == "vit":
            width = settings.width or USUAL_VIT_WIDTH
            return vit(width, CLASSES, channels=1, side=SIDE, blocks=settings.blocks)
        build, usual_width = NETWORKS[settings.model]
        return build(settings.width or usual_width)

    def metrics(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """Return the accuracy and the error in percent."""
        metrics = super().metrics(logits, labels)
        return {**metrics, "error": 100 - metrics["accuracy"]}


@task(
    "mnist",
    title="MNIST, LeNet-5-Caffe",
    metric="accuracy",
    goal="max",
    data="tasks.mnist.data:describe_mnist",
    settings=settings.EMBEDDED,
    profiles=settings.PROFILES,
    downloads=settings.MNIST_FILES,
)
class Mnist(MnistImages):
    """Handwritten digits, 54,000 training images; embedded: scikit-learn's digits, enlarged."""

    data_set = data.MNIST


@task(
    "fashion_mnist",
    title="Fashion-MNIST, LeNet-5-Caffe",
    metric="accuracy",
    goal="max",
    data="tasks.mnist.data:describe_fashion_mnist",
    settings=settings.EMBEDDED,
    profiles=settings.PROFILES,
    downloads=settings.FASHION_MNIST_FILES,
)
class FashionMnist(MnistImages):
    """Clothes, 54,000 training images; embedded: scikit-learn's digits, enlarged."""

    data_set = data.FASHION_MNIST
