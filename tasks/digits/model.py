"""ResNet18 for small images."""

from __future__ import annotations

from torch import nn
from torchvision.models.resnet import BasicBlock


def resnet18(width: int, channels: int, classes: int) -> nn.Sequential:
    """Return a ResNet18 (He et al., arXiv:1512.03385) for images of 8x8.

    A 3x3 convolution takes the place of the strided 7x7 one and of the pooling after it, and the
    last stage keeps its 2x2 maps: on 1x1 maps, eight of the nine weights of every kernel would
    only ever see the padding, and 60 % of the network could be removed without any effect.

    Args:
        width: channels of the first stage; the others have 2, 4 and 8 times as many.
        channels: of the input.
        classes: of the output.
    """
    layers: list[nn.Module] = [*_normalised(nn.Conv2d(channels, width, 3, 1, 1, bias=False))]
    layers.append(nn.ReLU(inplace=True))
    incoming = width
    for stage, stride in enumerate((1, 2, 2, 1)):
        outgoing = width * 2**stage
        shortcut = None
        if outgoing != incoming:
            shortcut = nn.Sequential(
                *_normalised(nn.Conv2d(incoming, outgoing, 1, stride, bias=False))
            )
        layers.append(BasicBlock(incoming, outgoing, stride, shortcut))
        layers.append(BasicBlock(outgoing, outgoing))
        incoming = outgoing
    model = nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(incoming, classes)
    )
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


def _normalised(convolution: nn.Conv2d) -> tuple[nn.Module, nn.Module]:
    return convolution, nn.BatchNorm2d(convolution.out_channels)
