"""ResNeXt101 (Xie et al., arXiv:1611.05431) in the wide sizes of Mahajan et al. (1805.00932)."""

from __future__ import annotations

from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet


def resnext101(group_width: int, width: int, classes: int) -> nn.Module:
    """Return a new network, which nothing was trained before, with a head for the classes.

    Args:
        group_width: channels of each of the 32 groups in the first stage, as published.
        width: 64 as published; the inner channels of every block are proportional to it.
        classes: of the output.
    """
    model: nn.Module = ResNet(
        Bottleneck,
        [3, 4, 23, 3],
        num_classes=classes,
        groups=32,
        width_per_group=max(1, group_width * width // 64),
    )
    return model
