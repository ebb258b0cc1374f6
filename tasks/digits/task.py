"""Classify handwritten digits with a small ResNet18."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from harness.registry import task
from tasks.digits.settings import DIGITS, PROFILES, DigitsSettings
from tasks.images import digits
from tasks.images.classification import GreyImages, Images
from tasks.images.networks import resnet18
from tasks.images.vit import vit

STRIDES = (1, 2, 2, 1)
"""Strides of the network's four stages.

The last stage keeps its 2x2 maps: on 1x1 maps, eight of the nine weights of every kernel would
only see the padding, and 60 % of the network could be removed without any effect.
"""

VIT_STRIDES = (1, 2)
"""Strides of the stem of a vision transformer: a token for 2x2 pixels."""


@task(
    "digits",
    title="Handwritten digits, ResNet18",
    metric="accuracy",
    goal="max",
    data="tasks.images.digits:describe",
    settings=DIGITS,
    profiles=PROFILES,
)
class Digits(GreyImages):
    """Ten classes, 898 training images, accuracy in percent."""

    settings: DigitsSettings
    classes, side = digits.CLASSES, 8
    largest_value = digits.LARGEST_VALUE
    evaluation_batch = digits.TRAIN + digits.VALIDATION + digits.TEST

    def __init__(self, settings: DigitsSettings, data_folder: Path, device: torch.device) -> None:
        images, labels = (torch.from_numpy(array).to(device) for array in digits.read())
        numbers = {part: torch.from_numpy(each).to(device) for part, each in digits.split().items()}
        parts = {part: Images(images, labels, numbers[part]) for part in numbers}
        super().__init__(settings, data_folder, device, parts)

    def own_model(self) -> nn.Module:
        """Return the network: a ResNet18 for images of 8x8, or a vision transformer."""
        width, classes = self.settings.width, digits.CLASSES
        if self.settings.model == "resnet18":
            return resnet18(width, classes, channels=1, strides=STRIDES)
        blocks = self.settings.blocks
        return vit(width, classes, channels=1, side=8, blocks=blocks, strides=VIT_STRIDES)
