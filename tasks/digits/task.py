"""Classify handwritten digits with a small ResNet18."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from harness.registry import task
from tasks.digits import data
from tasks.digits.settings import DIGITS, PROFILES
from tasks.images.classification import ImageClassification, Images, percentage
from tasks.images.networks import resnet18
from tasks.images.settings import ImageSettings
from tasks.images.transforms import shifted

STRIDES = (1, 2, 2, 1)
"""Strides of the network's four stages.

The last stage keeps its 2x2 maps: on 1x1 maps, eight of the nine weights of every kernel would
only see the padding, and 60 % of the network could be removed without any effect.
"""


@task(
    "digits",
    title="Handwritten digits, ResNet18",
    metric="accuracy",
    goal="max",
    data="tasks.digits.data:describe",
    settings=DIGITS,
    profiles=PROFILES,
)
class Digits(ImageClassification):
    """Ten classes, 898 training images, accuracy in percent."""

    largest_value = 16
    evaluation_batch = data.TRAIN + data.VALIDATION + data.TEST

    def __init__(self, settings: ImageSettings, data_folder: Path, device: torch.device) -> None:
        images, labels = (torch.from_numpy(array).to(device) for array in data.read())
        numbers = {part: torch.from_numpy(each).to(device) for part, each in data.split().items()}
        parts = {part: Images(images, labels, numbers[part]) for part in numbers}
        super().__init__(settings, data_folder, device, parts)
        train = self.scaled(images[numbers["train"]])
        self._mean, self._deviation = train.mean(), train.std()

    def model(self) -> nn.Module:
        """Return the network: a ResNet18 for images of 8x8."""
        return resnet18(self.settings.width, data.CLASSES, channels=1, strides=STRIDES)

    def augmented(self, stored: Tensor, generator: Generator) -> Tensor:
        """Return images moved by at most ``shift`` pixels."""
        return self.prepared(self.scaled(shifted(stored, self.settings.shift, generator)))

    def prepared(self, values: Tensor) -> Tensor:
        """Return images normalised by the mean and standard deviation of the training images."""
        return (values - self._mean) / self._deviation

    def metrics(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """Return the accuracy in percent."""
        return {"accuracy": percentage(logits.argmax(1) == labels)}
