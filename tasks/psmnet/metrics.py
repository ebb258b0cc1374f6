"""How far predicted disparities are from the known ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Errors:
    """Errors over all the valid pixels of a set: sums, and not means of the means of images."""

    def __init__(self) -> None:
        self._pixels = 0
        self._distance = 0.0
        self._wrong = 0

    def add(self, predicted: Tensor, known: Tensor, valid: Tensor) -> None:
        """Count an image, or several.

        Args:
            predicted: disparities in pixels.
            known: the same, of the same shape.
            valid: which of them count.
        """
        distance = (predicted - known).abs()[valid].double()
        is_wrong = (distance >= 3) & (distance >= 0.05 * known[valid])
        self._pixels += distance.numel()
        self._distance += float(distance.sum())
        self._wrong += int(torch.count_nonzero(is_wrong))

    @property
    def end_point_error(self) -> float:
        """The mean distance in pixels, NaN if no pixel counts."""
        return self._distance / self._pixels if self._pixels else math.nan

    @property
    def three_pixel_error(self) -> float:
        """The pixels in percent that are wrong by 3 pixels and by 5 % or more, as KITTI has it.

        NaN if no pixel counts.
        """
        return 100 * self._wrong / self._pixels if self._pixels else math.nan
