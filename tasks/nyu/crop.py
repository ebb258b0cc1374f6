"""What of a frame a network sees: the middle, at half the resolution."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

Maps = TypeVar("Maps", bound=Any)
"""Arrays or tensors (..., height, width)."""

HALF = np.s_[..., ::2, ::2]
"""Every second pixel of maps, as published: 240x320 of 480x640."""


def cropped_size(height: int, width: int) -> tuple[int, int]:
    """Return the size of the middle: 228x304 of 240x320."""
    return height * 19 // 20, width * 19 // 20


def centre_crop(maps: Maps) -> Maps:
    """Return the middle of maps (..., height, width)."""
    height, width = maps.shape[-2:]
    cropped_height, cropped_width = cropped_size(height, width)
    top, left = (height - cropped_height) // 2, (width - cropped_width) // 2
    middle: Maps = maps[..., top : top + cropped_height, left : left + cropped_width]
    return middle
