"""Small folders of images and files with networks, as a user may have them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

NETWORKS = """
from torch import nn


def small():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 2, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


def of_width(width):
    return nn.Linear(width, 3)


def number():
    return 3


def four_classes():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))


def pair():
    class Pair(nn.Module):
        def forward(self, images):
            return images, images

    return Pair()


def broken():
    raise ValueError("no weights today")


not_a_function = 3
"""


def paint(folder: Path, classes: Sequence[str], each: int = 10) -> Path:
    """Write PNGs of random pixels, brighter in one colour for each of up to three classes."""
    random = np.random.default_rng(0)
    for colour, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            pixels = (80 * random.random((36 + number, 40, 3))).astype(np.uint8)
            pixels[..., colour] += 120
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def write_own_data(folder: Path) -> None:
    """Write what the guide calls leaves, wares, tales and mine.py."""
    paint(folder / "leaves", ("ash", "beech", "oak"))
    (folder / "mine.py").write_text(NETWORKS.replace("small", "make_model"))
    rows = [f"{number},{'long' if number > 20 else 'short'}" for number in range(40)]
    (folder / "wares.csv").write_text("\n".join(["length,kind", *rows]))
    (folder / "tales").mkdir()
    (folder / "tales" / "first.txt").write_text("once upon a time\n" * 200)
