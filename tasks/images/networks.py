"""The networks of image classification, at their published sizes and narrower."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.vgg import make_layers

NEGATIVE_SLOPE = 0.05
"""Slope of the leaky rectifiers in the networks of the EarlyCroP repository."""

STRIDES = (1, 2, 2, 2)
"""Strides of the four stages of a ResNet18."""

VGG_STAGES = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))
"""Channels of each convolution of a VGG16, in widths; a pooling follows each stage."""
OFFICIAL_VGG_STAGES = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 16))
"""The same in the EarlyCroP repository, which has no pooling after the last stage."""


def resnet18(
    width: int, classes: int, *, channels: int = 3, strides: Sequence[int] = STRIDES
) -> nn.Sequential:
    """Return the usual ResNet18 (He et al., arXiv:1512.03385) for images of 32x32.

    A 3x3 convolution replaces the strided 7x7 convolution and the pooling after it.

    Args:
        width: channels of the first stage, 64 as published; the others have 2, 4 and 8 times as
            many.
        classes: number of outputs.
        channels: channels of the images.
        strides: strides of the four stages.
    """
    model = nn.Sequential(
        *_normalised(nn.Conv2d(channels, width, 3, 1, 1, bias=False)),
        nn.ReLU(inplace=True),
        *_stages(width, strides, _basic_block),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8 * width, classes),
    )
    _initialise_for_rectifiers(model)
    return model


def official_resnet18(width: int, classes: int) -> nn.Sequential:
    """Return the ResNet18 of the EarlyCroP repository.

    Its stem is that of the ImageNet network; its blocks have biases and leaky rectifiers; it ends
    in two linear layers on 2x2 maps.

    Args:
        width: channels of the first stage, 64 as published.
        classes: number of outputs.
    """
    model = nn.Sequential(
        *_normalised(nn.Conv2d(3, width, 7, 2, 3, bias=False)),
        nn.LeakyReLU(NEGATIVE_SLOPE),
        nn.MaxPool2d(3, 2, 1),
        *_stages(width, STRIDES, _LeakyBlock),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(4 * 8 * width, 4 * width),
        nn.BatchNorm1d(4 * width),
        nn.LeakyReLU(NEGATIVE_SLOPE),
        nn.Dropout(0.3),
        nn.Linear(4 * width, classes),
    )
    _initialise_orthogonally(model)
    return model


def vgg16(width: int, classes: int) -> nn.Sequential:
    """Return the usual VGG16 (Simonyan and Zisserman, arXiv:1409.1556) for images of 32x32.

    It has batch normalisation and a single linear layer.

    Args:
        width: channels of the first stage, 64 as published.
        classes: number of outputs.
    """
    configuration: list[str | int] = []
    for stage in VGG_STAGES:
        configuration += [*(width * widths for widths in stage), "M"]
    features = make_layers(configuration, batch_norm=True)
    _initialise_for_rectifiers(features)
    return nn.Sequential(
        features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, classes)
    )


def official_vgg16(width: int, classes: int) -> nn.Sequential:
    """Return the VGG16 of the EarlyCroP repository.

    It has leaky rectifiers, 1,024 channels in the last convolution, and three linear layers on
    2x2 maps.

    Args:
        width: channels of the first stage, 64 as published.
        classes: number of outputs.
    """
    layers: list[nn.Module] = []
    incoming = 3
    for stage in OFFICIAL_VGG_STAGES:
        if layers:
            layers.append(nn.MaxPool2d(2))
        for widths in stage:
            outgoing = width * widths
            layers += [nn.Conv2d(incoming, outgoing, 3, padding=1), nn.BatchNorm2d(outgoing)]
            layers.append(nn.LeakyReLU(NEGATIVE_SLOPE))
            incoming = outgoing
    layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    for _ in range(2):
        layers += [nn.Dropout(0.3), nn.Linear(4 * incoming, 4 * incoming)]
        layers += [nn.BatchNorm1d(4 * incoming), nn.LeakyReLU(NEGATIVE_SLOPE)]
    model = nn.Sequential(*layers, nn.Dropout(0.3), nn.Linear(4 * incoming, classes))
    _initialise_orthogonally(model)
    return model


def resnext101(group_width: int, width: int, classes: int) -> nn.Module:
    """Return a ResNeXt101 (Xie et al., arXiv:1611.05431), newly initialised.

    The wide sizes are those of Mahajan et al. (arXiv:1805.00932).

    Args:
        group_width: channels of each of the 32 groups in the first stage, as published.
        width: 64 as published; the inner channels of every block are proportional to it.
        classes: number of outputs.
    """
    model: nn.Module = ResNet(
        Bottleneck,
        [3, 4, 23, 3],
        num_classes=classes,
        groups=32,
        width_per_group=max(1, group_width * width // 64),
    )
    return model


NETWORKS: Mapping[str, Callable[..., nn.Module]] = {
    "resnet18": resnet18,
    "resnet18_official": official_resnet18,
    "vgg16": vgg16,
    "vgg16_official": official_vgg16,
    "resnext101_32x16d": partial(resnext101, group_width=16),
    "resnext101_32x48d": partial(resnext101, group_width=48),
}
"""Builders by the values of the setting ``model``; all take ``width`` and ``classes``."""


def _stages(
    width: int, strides: Sequence[int], block: Callable[[int, int, int], nn.Module]
) -> Iterator[nn.Module]:
    """Yield stages of two blocks; each stage after the first doubles the channels."""
    incoming = width
    for stage, stride in enumerate(strides):
        outgoing = width * 2**stage
        yield block(incoming, outgoing, stride)
        yield block(outgoing, outgoing, 1)
        incoming = outgoing


def _basic_block(incoming: int, outgoing: int, stride: int) -> nn.Module:
    shortcut = None
    if incoming != outgoing:
        shortcut = nn.Sequential(*_normalised(_shortcut(incoming, outgoing, stride)))
    block: nn.Module = BasicBlock(incoming, outgoing, stride, shortcut)
    return block


class _LeakyBlock(nn.Module):
    """Two 3x3 convolutions with biases, and a shortcut."""

    def __init__(self, incoming: int, outgoing: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            *_normalised(nn.Conv2d(incoming, outgoing, 3, stride, 1)), nn.LeakyReLU(NEGATIVE_SLOPE)
        )
        self.second = nn.Sequential(*_normalised(nn.Conv2d(outgoing, outgoing, 3, 1, 1)))
        self.shortcut = nn.Sequential()
        if incoming != outgoing:
            self.shortcut.extend(_normalised(_shortcut(incoming, outgoing, stride)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated sum."""
        return F.leaky_relu(self.second(self.first(x)) + self.shortcut(x), NEGATIVE_SLOPE)


def _shortcut(incoming: int, outgoing: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(incoming, outgoing, 1, stride, bias=False)


def _normalised(convolution: nn.Conv2d) -> tuple[nn.Module, nn.Module]:
    return convolution, nn.BatchNorm2d(convolution.out_channels)


def _initialise_for_rectifiers(model: nn.Module) -> None:
    """Draw the weights of convolutions as He et al. (arXiv:1502.01852) do, in place."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _initialise_orthogonally(model: nn.Module) -> None:
    """Make all weights orthogonal, in place, as the EarlyCroP repository does.

    Biases keep PyTorch's uniform distribution.
    """
    gain = nn.init.calculate_gain("leaky_relu", NEGATIVE_SLOPE)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(module.weight, gain)
