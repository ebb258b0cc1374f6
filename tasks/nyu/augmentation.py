"""Random changes of training frames, and the part of a frame that a network sees.

The geometry is that of sparse-to-dense (Ma & Karaman, ICRA 2018, arXiv:1709.07492). The colours are
those of Eigen et al. (arXiv:1406.2283), which Laina et al. use too. The published code shrinks,
rotates, zooms, crops and mirrors one after the other; here a single affine map does all of it.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

Maps = TypeVar("Maps", bound=Any)
"""Arrays or tensors (..., height, width)."""

SHRUNK = 250 / 240
"""Training images have 250 rows before they are cropped, where test images have 240."""
LARGEST_ANGLE = math.radians(5)
COLOURS = (0.8, 1.2)
"""Smallest and largest factor of each colour."""


def cropped_size(height: int, width: int) -> tuple[int, int]:
    """Return the size of the centre that a network sees: 228x304 of 240x320."""
    return height * 19 // 20, width * 19 // 20


def centre_crop(maps: Maps) -> Maps:
    """Return the centre of maps (..., height, width)."""
    height, width = maps.shape[-2:]
    cropped_height, cropped_width = cropped_size(height, width)
    top, left = (height - cropped_height) // 2, (width - cropped_width) // 2
    centre: Maps = maps[..., top : top + cropped_height, left : left + cropped_width]
    return centre


def augmented(
    images: Tensor, depths: Tensor, largest_zoom: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return randomly changed crops.

    Zooming in by a factor brings everything nearer: depths are divided by it. Depths are taken
    from the nearest pixel, since the mean of two depths is the depth of neither.

    Args:
        images: (n, 3, height, width), from 0 to 1.
        depths: (n, height, width) in metres, 0 where unknown.
        largest_zoom: the largest factor, 1.5 in the published code.
        generator: draws the changes, on the CPU.
    """
    count, _, height, width = images.shape
    numbers = torch.rand(count, 6, generator=generator).to(images.device)
    angle = (2 * numbers[:, 0] - 1) * LARGEST_ANGLE
    zoom = 1 + numbers[:, 1] * (largest_zoom - 1)
    mirror = torch.where(numbers[:, 2] < 0.5, 1.0, -1.0)
    lowest, highest = COLOURS
    colours = lowest + numbers[:, 3:] * (highest - lowest)
    places = _places(angle, SHRUNK * zoom, mirror, height, width)
    images = F.grid_sample(images, places, mode="bilinear", align_corners=False)
    depths = F.grid_sample(depths[:, None], places, mode="nearest", align_corners=False)[:, 0]
    return (images * colours[:, :, None, None]).clamp(0, 1), depths / zoom[:, None, None]


def _places(angle: Tensor, zoom: Tensor, mirror: Tensor, height: int, width: int) -> Tensor:
    """Return the source of each pixel of the crops (n, h, w, 2), as `F.grid_sample` expects it."""
    rows, columns = (
        (torch.arange(size, device=angle.device) - (size - 1) / 2)
        for size in cropped_size(height, width)
    )
    y, x = rows[None, :, None] / zoom[:, None, None], columns / zoom[:, None, None]
    x = x * mirror[:, None, None]
    sine, cosine = angle.sin()[:, None, None], angle.cos()[:, None, None]
    right, down = cosine * x - sine * y, sine * x + cosine * y
    return torch.stack([2 * right / width, 2 * down / height], dim=-1)
