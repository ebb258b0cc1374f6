"""Classify handwritten digits with a small ResNet18."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from harness.registry import task
from tasks.digits import data
from tasks.digits.settings import DIGITS, PROFILES
from tasks.images.classification import GreyImages, Images
from tasks.images.networks import resnet18
from tasks.images.settings import ImageSettings

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
class Digits(GreyImages):
    """Ten classes, 898 training images, accuracy in percent."""

    largest_value = data.LARGEST_VALUE
    evaluation_batch = data.TRAIN + data.VALIDATION + data.TEST

    def __init__(self, settings: ImageSettings, data_folder: Path, device: torch.device) -> None:
        images, labels = (torch.from_numpy(array).to(device) for array in data.read())
        numbers = {part: torch.from_numpy(each).to(device) for part, each in data.split().items()}
        parts = {part: Images(images, labels, numbers[part]) for part in numbers}
        super().__init__(settings, data_folder, device, parts)

    def model(self) -> nn.Module:
        """Return the network: a ResNet18 for images of 8x8."""
        return resnet18(self.settings.width, data.CLASSES, channels=1, strides=STRIDES)
