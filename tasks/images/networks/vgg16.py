"""VGG16 (Simonyan and Zisserman, arXiv:1409.1556) with batch normalisation, for small images."""

from __future__ import annotations

from torch import nn
from torchvision.models.vgg import make_layers

from tasks.images.networks.initialisation import NEGATIVE_SLOPE, initialise_orthogonally

STAGES = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))
"""Channels of each convolution, in widths; a pooling follows each stage."""
OFFICIAL_STAGES = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 16))
"""The same in the EarlyCroP repository, without the last pooling."""


def vgg16(width: int, classes: int) -> nn.Sequential:
    """Return the usual variant for images of 32x32, with a single linear layer.

    Args:
        width: channels of the first stage, 64 as published.
        classes: of the output.
    """
    configuration: list[str | int] = []
    for stage in STAGES:
        configuration += [*(width * widths for widths in stage), "M"]
    features = make_layers(configuration, batch_norm=True)
    for module in features:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(
        features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, classes)
    )


def official_vgg16(width: int, classes: int) -> nn.Sequential:
    """Return the variant of the EarlyCroP repository.

    It has leaky rectifiers, 1,024 channels in the last convolution, and three linear layers on
    2x2 maps.

    Args:
        width: channels of the first stage, 64 as published.
        classes: of the output.
    """
    layers: list[nn.Module] = []
    incoming = 3
    for stage in OFFICIAL_STAGES:
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
    initialise_orthogonally(model)
    return model
