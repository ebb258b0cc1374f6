"""The networks of image classification, at their published sizes and narrower."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from tasks.images.networks.resnet18 import official_resnet18, resnet18
from tasks.images.networks.resnext101 import resnext101
from tasks.images.networks.vgg16 import official_vgg16, vgg16

NETWORKS: Mapping[str, Callable[..., nn.Module]] = {
    "resnet18": resnet18,
    "resnet18_official": official_resnet18,
    "vgg16": vgg16,
    "vgg16_official": official_vgg16,
    "resnext101_32x16d": partial(resnext101, group_width=16),
    "resnext101_32x48d": partial(resnext101, group_width=48),
}
"""Builders by the values of the setting ``model``; all take ``width`` and ``classes``."""
