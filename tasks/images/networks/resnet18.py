"""ResNet18 (He et al., arXiv:1512.03385) for small images."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock

from tasks.images.networks.initialisation import NEGATIVE_SLOPE, initialise_orthogonally


def resnet18(width: int, classes: int) -> nn.Sequential:
    """Return the usual variant for images of 32x32.

    A 3x3 convolution takes the place of the strided 7x7 one and of the pooling after it.

    Args:
        width: channels of the first stage, 64 as published.
        classes: of the output.
    """
    model = nn.Sequential(
        *_normalised(nn.Conv2d(3, width, 3, 1, 1, bias=False)),
        nn.ReLU(inplace=True),
        *_stages(width, _block),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8 * width, classes),
    )
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


def official_resnet18(width: int, classes: int) -> nn.Sequential:
    """Return the variant of the EarlyCroP repository.

    Its stem is that of the ImageNet network; its blocks have biases and leaky rectifiers; it ends
    in two linear layers on 2x2 maps.

    Args:
        width: channels of the first stage, 64 as published.
        classes: of the output.
    """
    model = nn.Sequential(
        *_normalised(nn.Conv2d(3, width, 7, 2, 3, bias=False)),
        nn.LeakyReLU(NEGATIVE_SLOPE),
        nn.MaxPool2d(3, 2, 1),
        *_stages(width, _LeakyBlock),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(4 * 8 * width, 4 * width),
        nn.BatchNorm1d(4 * width),
        nn.LeakyReLU(NEGATIVE_SLOPE),
        nn.Dropout(0.3),
        nn.Linear(4 * width, classes),
    )
    initialise_orthogonally(model)
    return model


def _stages(width: int, block: Callable[[int, int, int], nn.Module]) -> Iterator[nn.Module]:
    """Yield four stages of two blocks; each doubles the channels and halves the maps, but one."""
    incoming = width
    for stage in range(4):
        outgoing = width * 2**stage
        yield block(incoming, outgoing, 1 if stage == 0 else 2)
        yield block(outgoing, outgoing, 1)
        incoming = outgoing


def _block(incoming: int, outgoing: int, stride: int) -> nn.Module:
    shortcut = None
    if stride != 1:
        shortcut = nn.Sequential(*_normalised(_shortcut(incoming, outgoing, stride)))
    block: nn.Module = BasicBlock(incoming, outgoing, stride, shortcut)
    return block


class _LeakyBlock(nn.Module):
    """Two 3x3 convolutions with biases beside a shortcut."""

    def __init__(self, incoming: int, outgoing: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            *_normalised(nn.Conv2d(incoming, outgoing, 3, stride, 1)), nn.LeakyReLU(NEGATIVE_SLOPE)
        )
        self.second = nn.Sequential(*_normalised(nn.Conv2d(outgoing, outgoing, 3, 1, 1)))
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut.extend(_normalised(_shortcut(incoming, outgoing, stride)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated sum."""
        return F.leaky_relu(self.second(self.first(x)) + self.shortcut(x), NEGATIVE_SLOPE)


def _shortcut(incoming: int, outgoing: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(incoming, outgoing, 1, stride, bias=False)


def _normalised(convolution: nn.Conv2d) -> tuple[nn.Module, nn.Module]:
    return convolution, nn.BatchNorm2d(convolution.out_channels)
