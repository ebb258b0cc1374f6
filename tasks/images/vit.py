"""A small vision transformer with a convolutional stem.

It has the width and depth of the compact transformers of Hassani et al. 2021 (arXiv:2104.05704)
and the stem of Xiao et al. 2021 (arXiv:2106.14881). It has no class token: the tokens are
averaged, as by Beyer et al. 2022 (arXiv:2205.01580).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from tasks.attention import DEVIATION, Sizes, blocks

HEADS = 4
"""Heads of attention, as in the compact transformers."""

EXPANSION = 2
"""Hidden units of a feed-forward layer, as a multiple of the width, as in these transformers."""

STRIDES = (2, 2)
"""Strides of the stem's convolutions: a token for 4x4 pixels."""


class VisionTransformer(nn.Module):
    """A classifier of images.

    Args:
        sizes: the sizes of the blocks.
        classes: number of outputs.
        channels: channels of the images.
        side: pixels of a side.
        strides: strides of the stem's convolutions.
    """

    def __init__(
        self, sizes: Sizes, classes: int, channels: int, side: int, strides: Sequence[int]
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_stem(channels, sizes.width, strides))
        for stride in strides:
            side = math.ceil(side / stride)
        self.positions = Positions(side**2, sizes.width)
        self.blocks = blocks(sizes)
        self.norm = nn.LayerNorm(sizes.width)
        self.classifier = nn.Linear(sizes.width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (images, classes) of images (images, channels, side, side)."""
        tokens = self.stem(images).flatten(2).transpose(1, 2)
        tokens = self.blocks(tokens + self.positions())
        logits: Tensor = self.classifier(self.norm(tokens).mean(1))
        return logits


class Positions(nn.Module):
    """A learned vector for each token.

    It is a layer of its own, because channels are scored where layers return them.

    Args:
        tokens: how many there are.
        width: features of a vector.
    """

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(DEVIATION * torch.randn(tokens, width))

    def forward(self) -> Tensor:
        """Return the vectors (tokens, width)."""
        return self.vectors


def vit(
    width: int,
    classes: int,
    *,
    side: int,
    blocks: int,
    channels: int = 3,
    strides: Sequence[int] = STRIDES,
) -> VisionTransformer:
    """Return a vision transformer.

    Args:
        width: features of each of the 4 heads. With 64 and 7 blocks it is as wide and as deep as
            CCT-7.
        classes: number of outputs.
        side: pixels of a side.
        blocks: number of blocks.
        channels: channels of the images.
        strides: strides of the stem's convolutions.
    """
    sizes = Sizes(head_width=width, heads=HEADS, blocks=blocks, expansion=EXPANSION)
    return VisionTransformer(sizes, classes, channels, side, strides)


def _stem(channels: int, width: int, strides: Sequence[int]) -> Iterator[nn.Module]:
    """Yield normalised convolutions, each but the last half as wide as the next, and a 1x1 one."""
    for place, stride in enumerate(strides, start=1):
        outgoing = width // 2 ** (len(strides) - place)
        yield nn.Conv2d(channels, outgoing, 3, stride, 1, bias=False)
        yield nn.BatchNorm2d(outgoing)
        yield nn.ReLU()
        channels = outgoing
    yield nn.Conv2d(width, width, 1)
