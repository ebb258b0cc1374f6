"""The pyramid stereo matching network, PSMNet (Chang & Chen, arXiv:1803.08669).

The layers are those of the two networks in the authors' code: `Basic`, with 3,672,896 parameters at
the published size, and `StackedHourglass`, with 5,224,768.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

REDUCTION = 4
"""Pixels of the images per pixel of the features, in both directions and in disparity."""

MULTIPLE = 4 * REDUCTION
"""Sides of images and the disparity range are multiples of it.

An hourglass halves the features twice.
"""


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut, without a ReLU after the sum."""

    def __init__(self, incoming: int, outgoing: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.first = convolution(incoming, outgoing, stride=stride, dilation=dilation)
        self.second = convolution(outgoing, outgoing, dilation=dilation)[:-1]
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or incoming != outgoing:
            self.shortcut = convolution(incoming, outgoing, kernel=1, stride=stride)[:-1]

    def forward(self, x: Tensor) -> Tensor:
        """Return maps that are ``stride`` times smaller."""
        result: Tensor = self.second(self.first(x)) + self.shortcut(x)
        return result


class PyramidBranch(nn.Module):
    """Features of the average of each region, at each of its pixels."""

    def __init__(self, incoming: int, outgoing: int, region: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(region)
        self.project = convolution(incoming, outgoing, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps of the size of ``x``."""
        return resized(self.project(self.pool(x)), x.shape[2:])


class Features(nn.Module):
    """The features of one image, at a quarter of its size: a CNN with spatial pyramid pooling.

    Args:
        width: channels of the result; inner layers have up to ten times as many.
        pooling: side of the largest of four pooled regions, in pixels of the features.
    """

    def __init__(self, width: int, pooling: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            convolution(3, width, stride=2), convolution(width, width), convolution(width, width)
        )
        self.layer1 = _stage(3, width, width)
        self.layer2 = _stage(16, width, 2 * width, stride=2)
        self.layer3 = _stage(3, 2 * width, 4 * width)
        self.layer4 = _stage(3, 4 * width, 4 * width, dilation=2)
        self.branches = nn.ModuleList(
            PyramidBranch(4 * width, width, region)
            for region in (pooling // 8, pooling // 4, pooling // 2, pooling)
        )
        self.last = nn.Sequential(
            convolution(10 * width, 4 * width), nn.Conv2d(4 * width, width, 1, bias=False)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the features (images, width, height / 4, width / 4)."""
        raw = self.layer2(self.layer1(self.first(images)))
        deep = self.layer4(self.layer3(raw))
        features: Tensor = self.last(
            torch.cat([raw, deep, *(branch(deep) for branch in self.branches)], dim=1)
        )
        return features


class Hourglass(nn.Module):
    """Down to a quarter of a volume's size and up again, connected to earlier hourglasses."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down1 = convolution3d(width, 2 * width, stride=2)
        self.level1 = convolution3d(2 * width, 2 * width)[:-1]
        self.down2 = convolution3d(2 * width, 2 * width, stride=2)
        self.level2 = convolution3d(2 * width, 2 * width)
        self.up2 = transposed_convolution3d(2 * width, 2 * width)
        self.up1 = transposed_convolution3d(2 * width, width)

    def forward(
        self, x: Tensor, before: Tensor | None = None, after: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return a volume like ``x``, and the level of half the size on the way down and up.

        Args:
            x: the volume.
            before: the level of half the size of the first hourglass, on its way down.
            after: the level of half the size of the previous hourglass, on its way up.
        """
        level = self.level1(self.down1(x))
        down = F.relu(level if after is None else level + after)
        up = self.up2(self.level2(self.down2(down)))
        up = F.relu(up + (down if before is None else before))
        return self.up1(up), down, up


class PSMNet(nn.Module, ABC):
    """The disparity of each pixel of the left of two rectified images.

    The paper takes the softmax of negative costs; here, as in its code, the network learns the
    sign. Sizes are changed with ``align_corners``, the default of the PyTorch version of that
    code.

    Args:
        width: channels of the features.
        max_disparity: in pixels; possible disparities are those below it.
        pooling: side of the largest pooled region, in pixels of the features.
    """

    def __init__(self, width: int, max_disparity: int, pooling: int) -> None:
        super().__init__()
        self.max_disparity = max_disparity
        self.features = Features(width, pooling)
        self.reduce = nn.Sequential(convolution3d(2 * width, width), convolution3d(width, width))
        self.refine = _residual3d(width)

    @abstractmethod
    def aggregate(self, volume: Tensor) -> list[Tensor]:
        """Return the matching costs of each output (pairs, 1, disparities, height, width)."""

    def costs(self, left: Tensor, right: Tensor) -> list[Tensor]:
        """Return the matching costs of each output, at a quarter of the resolution."""
        volume = cost_volume(
            self.features(left), self.features(right), self.max_disparity // REDUCTION
        )
        volume = self.reduce(volume)
        return self.aggregate(self.refine(volume) + volume)

    def disparities(self, left: Tensor, right: Tensor) -> list[Tensor]:
        """Return the disparities of each output, the best one last: (pairs, height, width)."""
        return [self._regress(cost, left.shape[2:]) for cost in self.costs(left, right)]

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the disparities (pairs, height, width) in pixels.

        Args:
            left: normalised images (pairs, 3, height, width) with sides that are multiples of 16.
            right: the right images, of the same shape.
        """
        return self._regress(self.costs(left, right)[-1], left.shape[2:])

    def _regress(self, cost: Tensor, size: Sequence[int]) -> Tensor:
        """Return the mean disparity under the softmax of the costs."""
        full = resized(cost, (self.max_disparity, *size)).squeeze(1)
        candidates = torch.arange(self.max_disparity, dtype=full.dtype, device=full.device)
        return (full.softmax(1) * candidates.view(-1, 1, 1)).sum(1)


class Basic(PSMNet):
    """Residual three-dimensional convolutions, and one output."""

    def __init__(self, width: int, max_disparity: int, pooling: int) -> None:
        super().__init__(width, max_disparity, pooling)
        self.residuals = nn.ModuleList(_residual3d(width) for _ in range(3))
        self.classify = _classifier(width)
        initialise(self)

    def aggregate(self, volume: Tensor) -> list[Tensor]:
        """Return one cost."""
        for residual in self.residuals:
            volume = residual(volume) + volume
        return [self.classify(volume)]


class StackedHourglass(PSMNet):
    """Three hourglasses; the costs of each are added to those of the one before."""

    def __init__(self, width: int, max_disparity: int, pooling: int) -> None:
        super().__init__(width, max_disparity, pooling)
        self.hourglasses = nn.ModuleList(Hourglass(width) for _ in range(3))
        self.classifiers = nn.ModuleList(_classifier(width) for _ in range(3))
        initialise(self)

    def aggregate(self, volume: Tensor) -> list[Tensor]:
        """Return three costs."""
        first, second, third = self.hourglasses
        out1, before, after = first(volume)
        out1 = out1 + volume
        out2, _, after = second(out1, before, after)
        out2 = out2 + volume
        out3, _, _ = third(out2, before, after)
        out3 = out3 + volume
        cost1, cost2, cost3 = (
            classify(out)
            for classify, out in zip(self.classifiers, (out1, out2, out3), strict=True)
        )
        return [cost1, cost1 + cost2, cost1 + cost2 + cost3]


NETWORKS: dict[str, type[PSMNet]] = {"basic": Basic, "stacked_hourglass": StackedHourglass}
"""The published networks, by the values of the setting ``model``."""


def cost_volume(left: Tensor, right: Tensor, disparities: int) -> Tensor:
    """Return the features of each left pixel, concatenated with those of its possible partners.

    Where the partner for a disparity would lie outside the right image, both are zero.

    Args:
        left: features of the left images (pairs, channels, height, width).
        right: features of the right images.
        disparities: number of disparities, from 0.

    Returns:
        A volume (pairs, 2 * channels, disparities, height, width).
    """
    width = left.shape[-1]
    padded = F.pad(right, (disparities - 1, 0))
    partners = torch.stack(
        [padded.narrow(-1, disparities - 1 - d, width) for d in range(disparities)], dim=2
    )
    columns = torch.arange(width, device=left.device)
    shifts = torch.arange(disparities, device=left.device)
    has_partner = columns >= shifts.view(-1, 1, 1)
    return torch.cat([left.unsqueeze(2) * has_partner, partners], dim=1)


def convolution(
    incoming: int, outgoing: int, *, kernel: int = 3, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """Return a convolution that keeps the size at stride 1, batch normalisation and a ReLU."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(incoming, outgoing, kernel, stride, padding, dilation, bias=False),
        nn.BatchNorm2d(outgoing),
        nn.ReLU(),
    )


def convolution3d(incoming: int, outgoing: int, *, stride: int = 1) -> nn.Sequential:
    """Return a convolution of volumes, batch normalisation and a ReLU."""
    return nn.Sequential(
        nn.Conv3d(incoming, outgoing, 3, stride, padding=1, bias=False),
        nn.BatchNorm3d(outgoing),
        nn.ReLU(),
    )


def transposed_convolution3d(incoming: int, outgoing: int) -> nn.Sequential:
    """Return a convolution that doubles the sides of a volume, and batch normalisation."""
    return nn.Sequential(
        nn.ConvTranspose3d(
            incoming, outgoing, 3, stride=2, padding=1, output_padding=1, bias=False
        ),
        nn.BatchNorm3d(outgoing),
    )


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """Return maps, or volumes, of another size, interpolated linearly."""
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return F.interpolate(x, size=tuple(size), mode=mode, align_corners=True)


def initialise(model: nn.Module) -> None:
    """Initialise convolutions like the authors' code, and transposed ones like PyTorch."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _stage(
    blocks: int, incoming: int, outgoing: int, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        BasicBlock(incoming, outgoing, stride, dilation),
        *(BasicBlock(outgoing, outgoing, dilation=dilation) for _ in range(blocks - 1)),
    )


def _residual3d(width: int) -> nn.Sequential:
    return nn.Sequential(convolution3d(width, width), convolution3d(width, width)[:-1])


def _classifier(width: int) -> nn.Sequential:
    return nn.Sequential(convolution3d(width, width), nn.Conv3d(width, 1, 3, padding=1, bias=False))
