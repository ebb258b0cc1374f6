"""Rendered pairs: textured layers at different distances, with exact disparity and occlusion.

A layer is a plane with an outline, drawn in the coordinates of the left image, where its disparity
is d = offset + across * x + down * y. A point at x in the left image is at x - d in the right one,
so x in the left image follows from its place in the right image too, and both images are drawn
the same way. Of the layers that cover a pixel the nearest, of the largest disparity, is seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tasks.psmnet.formats import Disparity, Picture, write_pfm, write_picture

HEIGHT, WIDTH = 96, 192
"""Of an image, in pixels."""
LARGEST_DISPARITY = 31.0
"""Of a layer at its nearest point, in pixels."""

TEST_SEEDS = 1_000_000
"""The first of them; training scenes have seeds from 0."""

_MARGIN = 64
"""Pixels of texture on either side of an image; more than any disparity."""

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Scene:
    """A pair of images with the disparities of both."""

    left: Picture
    right: Picture
    left_disparity: Disparity
    right_disparity: Disparity


@dataclass(frozen=True)
class _Layer:
    """A textured plane; an outline without corners covers everything."""

    offset: float
    across: float
    down: float
    texture: Array
    """Colours (HEIGHT, _MARGIN + WIDTH + _MARGIN, 3)."""
    corners: Array
    """Of a convex outline, clockwise as one looks at it: (corners, 2) of x and y."""

    def in_left_image(self, x: Array, y: Array) -> Array:
        """Return where in the left image is what the right one has at a place."""
        return (x + self.offset + self.down * y) / (1 - self.across)

    def disparity(self, x: Array, y: Array) -> Array:
        """Return the disparity of a place in the left image."""
        return self.offset + self.across * x + self.down * y

    def covers(self, x: Array, y: Array) -> Mask:
        """Tell which places of the left image lie inside the outline."""
        inside = np.ones(x.shape, dtype=bool)
        for (x0, y0), (x1, y1) in zip(self.corners, np.roll(self.corners, -1, 0), strict=True):
            inside &= (x1 - x0) * (y - y0) >= (y1 - y0) * (x - x0)
        return inside

    def colours(self, x: Array, rows: Array) -> Array:
        """Return the texture at places (n,) of the left image: (n, 3), linear between pixels."""
        place = np.clip(x + _MARGIN, 0, self.texture.shape[1] - 1.001)
        column, row = place.astype(np.int64), rows.astype(np.int64)
        share = (place - column)[:, None]
        return self.texture[row, column] * (1 - share) + self.texture[row, column + 1] * share


def render(seed: int) -> Scene:
    """Return the scene of a seed."""
    random = np.random.default_rng(seed)
    layers = [_background(random), *(_object(random) for _ in range(random.integers(5, 14)))]
    left, left_disparity = _view(layers, seen_from_right=False)
    right, right_disparity = _view(layers, seen_from_right=True)
    return Scene(
        _exposed(left, 1.0, random),
        _exposed(right, random.uniform(0.9, 1.1), random),
        left_disparity,
        right_disparity,
    )


def write(folder: Path, training: int, test: int) -> None:
    """Write scenes as FlyingThings3D has them, one image in each of its sequences."""
    for part, first_seed, count in (("TRAIN", 0, training), ("TEST", TEST_SEEDS, test)):
        for number in range(count):
            scene = render(first_seed + number)
            sequence = f"{part}/A/{number:04}"
            for side, picture, disparity in (
                ("left", scene.left, scene.left_disparity),
                ("right", scene.right, scene.right_disparity),
            ):
                frames, disparities = (
                    folder / kind / sequence / side for kind in ("frames_cleanpass", "disparity")
                )
                frames.mkdir(parents=True)
                disparities.mkdir(parents=True)
                write_picture(frames / "0006.png", picture)
                write_pfm(disparities / "0006.pfm", disparity)


def _view(layers: Sequence[_Layer], *, seen_from_right: bool) -> tuple[Array, Disparity]:
    """Return the colours and the disparities of one image."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    colours, nearest = np.zeros((HEIGHT, WIDTH, 3)), np.zeros((HEIGHT, WIDTH))
    for layer in layers:
        place = layer.in_left_image(x, y) if seen_from_right else x
        disparity = layer.disparity(place, y)
        seen = layer.covers(place, y) & (disparity > nearest)
        nearest[seen] = disparity[seen]
        colours[seen] = layer.colours(place[seen], y[seen])
    return colours, nearest.astype(np.float32)


def _background(random: np.random.Generator) -> _Layer:
    across, down = random.uniform(-0.02, 0.02), random.uniform(0, 0.05)
    offset = random.uniform(5, 25) - across * WIDTH / 2 - down * HEIGHT / 2
    return _Layer(offset, across, down, _texture(random), np.empty((0, 2)))


def _object(random: np.random.Generator) -> _Layer:
    x, y = random.uniform(0, WIDTH), random.uniform(0, HEIGHT)
    across, down = random.uniform(-0.05, 0.05, 2)
    offset = random.uniform(5, LARGEST_DISPARITY - 4) - across * x - down * y
    angles = np.sort(random.uniform(0, 2 * np.pi, random.integers(3, 9)))
    half_sides = random.uniform(8, 50, 2)
    corners = np.array([x, y]) + half_sides * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return _Layer(offset, across, down, _texture(random), corners)


def _texture(random: np.random.Generator) -> Array:
    """Return noise of several sizes around a colour, of much contrast or of little."""
    colour, tint = random.uniform(30, 225, 3), random.uniform(0.5, 1.5, 3)
    pattern: Array = np.sum(
        [random.uniform() * _noise(random, cell) for cell in (2, 5, 13, 34)], axis=0
    )
    return np.clip(colour + random.uniform(15, 80) * pattern[..., None] * tint, 0, 255)


def _noise(random: np.random.Generator, cell: int) -> Array:
    """Return random numbers from -1 to 1 at the corners of cells, linear between them."""
    noise = random.uniform(-1, 1, (HEIGHT // cell + 2, (WIDTH + 2 * _MARGIN) // cell + 2))
    for axis, size in enumerate((HEIGHT, WIDTH + 2 * _MARGIN)):
        corner, share = np.divmod(np.arange(size), cell)
        share = np.expand_dims(share / cell, 1 - axis)
        noise = noise.take(corner, axis) * (1 - share) + noise.take(corner + 1, axis) * share
    return noise


def _exposed(colours: Array, gain: float, random: np.random.Generator) -> Picture:
    """Return what a camera makes of colours: brighter or darker, with noise."""
    noisy = gain * colours + random.normal(0, 2, colours.shape)
    return np.clip(noisy.round(), 0, 255).astype(np.uint8)
