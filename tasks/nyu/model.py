"""The fully convolutional residual network of Laina et al. (3DV 2016, arXiv:1606.00373)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from harness.errors import RequestError
from tasks.nyu.data import require_weights

Block = type[BasicBlock] | type[Bottleneck]

ENCODERS: Mapping[str, tuple[Block, Sequence[int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}
"""The block of an encoder, and the number of blocks in each of its four stages."""

_SMALLEST = 1 << 5
"""Least channels of the features: the bridge and the four up-projections each halve them."""


class FCRN(nn.Module):
    """A residual encoder, and four up-projections that each double the resolution.

    The published network is ``FCRN("resnet50", 64)``: it maps 228x304 pixels to 128x160 depths.
    Deviations from it, each with its reason:

    * the residual blocks are torchvision's, with the stride on the 3x3 convolution (the published
      ones have it on the first 1x1): the sizes are the same, and its ImageNet weights fit;
    * the output is linear: a ReLU over a single map, once dead, would never recover, and heavy
      pruning kills it easily. Users of the depth clamp it;
    * new layers are initialised like the encoder's (He et al., arXiv:1502.01852), not from
      N(0, 0.01).

    Args:
        encoder: a name in `ENCODERS`.
        width: channels of the stem; all other widths are multiples of it.
        up: a name in `UP_PROJECTIONS`.
        dropout: share of the last features that training drops.

    Raises:
        RequestError: the width is too small to be halved five times.
    """

    def __init__(self, encoder: str, width: int, up: str = "fast", dropout: float = 0.0) -> None:
        super().__init__()
        block, depths = ENCODERS[encoder]
        features = 8 * width * block.expansion
        if features < _SMALLEST:
            raise RequestError(
                f"nyu: width={width} is too narrow for {encoder}, whose features are halved five "
                f"times; the least is {_SMALLEST // (8 * block.expansion)}"
            )
        self.encoder = residual_encoder(block, depths, width)
        self.bridge = nn.Sequential(
            nn.Conv2d(features, features // 2, 1), nn.BatchNorm2d(features // 2)
        )
        self.decoder = nn.Sequential(
            *(UP_PROJECTIONS[up](features >> n, features >> n + 1) for n in range(1, 5))
        )
        self.dropout = nn.Dropout(dropout)
        self.depth = nn.Conv2d(features >> 5, 1, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return depths (images, 1, 16 h, 16 w) for features of h x w, a 32nd of the images."""
        depth: Tensor = self.depth(self.dropout(self.decoder(self.bridge(self.encoder(images)))))
        return depth


def residual_encoder(block: Block, depths: Sequence[int], width: int) -> nn.Sequential:
    """Return a ResNet (He et al., arXiv:1512.03385) without its pooling and its classifier.

    Its tensors have torchvision's names.

    Args:
        block: the residual block.
        depths: the number of blocks in each stage.
        width: channels of the stem.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(3, width, 7, 2, 3, bias=False),
        bn1=nn.BatchNorm2d(width),
        relu=nn.ReLU(inplace=True),
        maxpool=nn.MaxPool2d(3, 2, 1),
    )
    incoming = width
    for stage, depth in enumerate(depths):
        planes, stride = width << stage, 1 if stage == 0 else 2
        outgoing = planes * block.expansion
        shortcut = None
        if stride != 1 or incoming != outgoing:
            shortcut = nn.Sequential(
                nn.Conv2d(incoming, outgoing, 1, stride, bias=False), nn.BatchNorm2d(outgoing)
            )
        blocks: list[nn.Module] = [block(incoming, planes, stride, shortcut)]
        blocks += [block(outgoing, planes) for _ in range(depth - 1)]
        layers[f"layer{stage + 1}"] = nn.Sequential(*blocks)
        incoming = outgoing
    return nn.Sequential(layers)


def load_encoder(encoder: nn.Module, name: str, folder: Path) -> None:
    """Load torchvision's ImageNet weights into an encoder of the published width.

    Args:
        encoder: a `residual_encoder`.
        name: ``resnet18`` or ``resnet50``.
        folder: the folder of the file.

    Raises:
        RequestError: the file is missing or differs, or the encoder has another width.
    """
    path = require_weights(name, folder)
    weights = torch.load(path, map_location="cpu", weights_only=True)
    try:
        encoder.load_state_dict({k: v for k, v in weights.items() if not k.startswith("fc.")})
    except RuntimeError:
        raise RequestError(
            f"nyu: the weights of {path.name} fit only a {name} with width=64; "
            "train other widths from scratch, with init=scratch"
        ) from None


# Up-projections: (images, incoming, h, w) to (images, outgoing, 2 h, 2 w)


class UpProjection(nn.Module):
    """Up-projection: two branches from a map of twice the size, added (section 3.2, figure 2).

    Args:
        larger: the first layer of either branch, which doubles the size and normalises.
        incoming: channels of the input.
        outgoing: channels of the output.
    """

    def __init__(self, larger: type[nn.Module], incoming: int, outgoing: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            larger(incoming, outgoing),
            nn.ReLU(inplace=True),
            nn.Conv2d(outgoing, outgoing, 3, padding=1, bias=False),
            nn.BatchNorm2d(outgoing),
        )
        self.projection = larger(incoming, outgoing)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both branches, rectified."""
        return F.relu(self.branch(x) + self.projection(x))


class Unpooled(nn.Module):
    """A 5x5 convolution after unpooling: of each block of 2x2, all but the first is zero."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(incoming, outgoing, 5, padding=2, bias=False)
        self.norm = nn.BatchNorm2d(outgoing)

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of twice the size."""
        batch, channels, height, width = x.shape
        unpooled = x.new_zeros(batch, channels, 2 * height, 2 * width)
        unpooled[:, :, ::2, ::2] = x
        normalised: Tensor = self.norm(self.convolution(unpooled))
        return normalised


class Interleaved(nn.Module):
    """The same function without the products with zeros (section 3.2, figure 3).

    At an even or odd row and column of the output, only every second weight of the 5x5 kernel k
    takes part. So the four convolutions k[0::2, 0::2], k[0::2, 1::2], k[1::2, 0::2] and
    k[1::2, 1::2] are interleaved. One norm follows, as published.
    """

    KERNELS = ((3, 3), (3, 2), (2, 3), (2, 2))
    MARGINS = ((1, 1, 1, 1), (0, 1, 1, 1), (1, 1, 0, 1), (0, 1, 0, 1))
    """Left, right, top and bottom."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(incoming, outgoing, kernel, bias=False) for kernel in self.KERNELS
        )
        self.norm = nn.BatchNorm2d(outgoing)

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of twice the size."""
        maps = [
            convolution(F.pad(x, margin))
            for convolution, margin in zip(self.convolutions, self.MARGINS, strict=True)
        ]
        batch, channels, height, width = maps[0].shape
        even, odd = (
            torch.stack(pair, dim=-1).reshape(batch, channels, height, 2 * width)
            for pair in (maps[:2], maps[2:])
        )
        rows = torch.stack([even, odd], dim=-2).reshape(batch, channels, 2 * height, 2 * width)
        normalised: Tensor = self.norm(rows)
        return normalised


def fast(incoming: int, outgoing: int) -> nn.Module:
    """Return an up-projection with four small convolutions instead of each 5x5 one."""
    return UpProjection(Interleaved, incoming, outgoing)


def unpool(incoming: int, outgoing: int) -> nn.Module:
    """Return an up-projection as published, with unpooling."""
    return UpProjection(Unpooled, incoming, outgoing)


def deconvolution(incoming: int, outgoing: int) -> nn.Module:
    """Return a transposed convolution, the first alternative of table 1."""
    return nn.Sequential(
        nn.ConvTranspose2d(incoming, outgoing, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outgoing),
        nn.ReLU(inplace=True),
    )


def pixel_shuffle(incoming: int, outgoing: int) -> nn.Module:
    """Return a convolution whose channels become pixels (Shi et al., arXiv:1609.05158)."""
    return nn.Sequential(
        nn.Conv2d(incoming, 4 * outgoing, 3, padding=1, bias=False),
        nn.PixelShuffle(2),
        nn.BatchNorm2d(outgoing),
        nn.ReLU(inplace=True),
    )


UP_PROJECTIONS: Mapping[str, Callable[[int, int], nn.Module]] = {
    "fast": fast,
    "unpool": unpool,
    "deconvolution": deconvolution,
    "pixel_shuffle": pixel_shuffle,
}
"""Layers that double the resolution, by the values of the setting ``up``."""
