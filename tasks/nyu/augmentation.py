"""How training frames are varied, on whatever device they are.

The geometry is that of sparse-to-dense (Ma & Karaman, ICRA 2018, arXiv:1709.07492), the colours are
those of Eigen et al. (arXiv:1406.2283), which Laina et al. use too. One affine map does at once
what the published code does one after the other: shrink, turn, zoom, crop and mirror.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tasks.nyu.crop import cropped_size

SHRUNK = 250 / 240
"""What is varied has 250 rows where what is tested on has 240."""
LARGEST_ANGLE = math.radians(5)
COLOURS = (0.8, 1.2)
"""Factors of each colour."""


def augmented(
    images: Tensor, depths: Tensor, largest_zoom: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return varied crops.

    Zooming in by s brings everything nearer: depths are divided by s. They are taken from the
    nearest pixel, since the mean of two depths is that of nothing.

    Args:
        images: (n, 3, height, width), from 0 to 1.
        depths: (n, height, width) in metres, 0 where unknown.
        largest_zoom: 1.5 in the published code.
        generator: on the CPU.
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
    """Return where each pixel of the crops (n, h, w, 2) comes from, as `F.grid_sample` wants it."""
    rows, columns = (
        (torch.arange(size, device=angle.device) - (size - 1) / 2)
        for size in cropped_size(height, width)
    )
    y, x = rows[None, :, None] / zoom[:, None, None], columns / zoom[:, None, None]
    x = x * mirror[:, None, None]
    sine, cosine = angle.sin()[:, None, None], angle.cos()[:, None, None]
    right, down = cosine * x - sine * y, sine * x + cosine * y
    return torch.stack([2 * right / width, 2 * down / height], dim=-1)
