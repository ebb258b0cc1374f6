"""Transforms of images before a network sees them: random changes and normalisation.

Every function works on a whole batch, on the device of the images. All randomness comes from a
generator on the CPU, so that a seed gives the same images on every device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's red, green and blue, from 0 to 1.

Published encoders expect images that are normalised with them.
"""


def normalised(
    images: Tensor,
    mean: Sequence[float] = IMAGENET_MEAN,
    deviation: Sequence[float] = IMAGENET_DEVIATION,
) -> Tensor:
    """Return images (count, channels, height, width) minus the mean, over the deviation.

    Args:
        images: floating-point values, usually from 0 to 1.
        mean: one number for each channel.
        deviation: one number for each channel.
    """
    mean_of, deviation_of = (
        images.new_tensor(values)[:, None, None] for values in (mean, deviation)
    )
    return (images - mean_of) / deviation_of


def shifted(images: Tensor, pixels: int, generator: Generator) -> Tensor:
    """Shift each image by at most ``pixels`` in both directions, filling the border with zeros.

    Args:
        images: (count, channels, height, width).
        pixels: the largest shift.
        generator: draws the shifts.
    """
    count, _, height, width = images.shape
    down, right = torch.randint(0, 2 * pixels + 1, (2, count), generator=generator)
    padded = F.pad(images, (pixels,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    every, device = torch.arange(count, device=images.device), images.device
    return windows[every, :, down.to(device), right.to(device)]


def flipped(images: Tensor, generator: Generator) -> Tensor:
    """Mirror each image (count, channels, height, width) left to right with a chance of a half."""
    mirrored = torch.rand(len(images), generator=generator).lt(0.5).to(images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def rotated(images: Tensor, degrees: float, generator: Generator) -> Tensor:
    """Rotate each image by at most ``degrees`` either way, filling the corners with zeros.

    Args:
        images: floating-point values (count, channels, height, width).
        degrees: the largest angle.
        generator: draws the angles.
    """
    turns = torch.rand(len(images), generator=generator) * 2 - 1
    angles = torch.deg2rad(turns * degrees).to(images.device)
    cosine, sine, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    rows = torch.stack([cosine, -sine, zero, sine, cosine, zero], dim=1)
    grid = F.affine_grid(rows.view(-1, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
