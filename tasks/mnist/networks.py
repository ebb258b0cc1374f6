"""The networks of MNIST: the two LeNets of SNIP's experiments, and a small ResNet18.

The LeNets follow the code of SNIP (Lee et al. 2019, arXiv:1810.02340): LeNet-5-Caffe has no
rectifier after its convolutions, and weights are drawn with a variance of one over the fan-in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from tasks.images.networks import resnet18

SIDE = 28
"""Pixels of a side."""

CLASSES = 10

TRUNCATED_DEVIATION = 0.8796256610342398
"""Standard deviation of a standard normal distribution without its tails beyond 2."""


def lenet_300_100(width: int) -> nn.Sequential:
    """Return LeNet-300-100 (LeCun et al. 1998): two hidden layers.

    Args:
        width: neurons of the first hidden layer, 300 as published; the second has a third.
    """
    second = -(-width // 3)
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(SIDE**2, width),
        nn.ReLU(),
        nn.Linear(width, second),
        nn.ReLU(),
        nn.Linear(second, CLASSES),
    )
    _initialise_by_fan_in(model)
    return model


def lenet_5_caffe(width: int) -> nn.Sequential:
    """Return LeNet-5 as Caffe's tutorial has it: two convolutions and two linear layers.

    Args:
        width: channels of the first convolution, 20 as published; the second has 2.5 times as many,
            and the hidden layer 25 times.
    """
    second = width * 5 // 2
    model = nn.Sequential(
        nn.Conv2d(1, width, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(width, second, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * 4 * 4, 25 * width),
        nn.ReLU(),
        nn.Linear(25 * width, CLASSES),
    )
    _initialise_by_fan_in(model)
    return model


def small_resnet18(width: int) -> nn.Sequential:
    """Return a ResNet18 for grey images; `width` is the number of its first stage's channels."""
    return resnet18(width, CLASSES, channels=1)


NETWORKS: Mapping[str, tuple[Callable[[int], nn.Module], int]] = {
    "lenet_5_caffe": (lenet_5_caffe, 20),
    "lenet_300_100": (lenet_300_100, 300),
    "resnet18": (small_resnet18, 16),
}
"""Builders and their usual widths by the values of the setting ``model``."""


def _initialise_by_fan_in(model: nn.Module) -> None:
    """Draw weights from a truncated normal distribution, in place; biases are zero."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            deviation = fan_in**-0.5 / TRUNCATED_DEVIATION
            nn.init.trunc_normal_(module.weight, 0, deviation, -2 * deviation, 2 * deviation)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
