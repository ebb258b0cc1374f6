"""Random views of images, made for a whole batch at a time on the device where it lies.

All randomness comes from a generator on the CPU, so that a seed gives the same views anywhere.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F


def shifted(images: Tensor, pixels: int, generator: Generator) -> Tensor:
    """Move each image by at most so many pixels in both directions; black comes in.

    Args:
        images: (count, channels, height, width).
        pixels: the farthest.
        generator: of the moves.
    """
    count, _, height, width = images.shape
    down, right = torch.randint(0, 2 * pixels + 1, (2, count), generator=generator)
    padded = F.pad(images, (pixels,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    every, device = torch.arange(count, device=images.device), images.device
    return windows[every, :, down.to(device), right.to(device)]


def flipped(images: Tensor, generator: Generator) -> Tensor:
    """Mirror each image (count, channels, height, width) or not, left to right."""
    mirrored = torch.rand(len(images), generator=generator).lt(0.5).to(images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def rotated(images: Tensor, degrees: float, generator: Generator) -> Tensor:
    """Turn each image by at most so many degrees either way; black comes in.

    Args:
        images: (count, channels, height, width), not bytes.
        degrees: the farthest.
        generator: of the angles.
    """
    turns = torch.rand(len(images), generator=generator) * 2 - 1
    angles = torch.deg2rad(turns * degrees).to(images.device)
    cosine, sine, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    rows = torch.stack([cosine, -sine, zero, sine, cosine, zero], dim=1)
    grid = F.affine_grid(rows.view(-1, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
