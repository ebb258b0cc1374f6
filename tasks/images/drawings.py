"""Drawn objects that replace photographs, made in seconds.

Each image shows one object on a patterned background, with random position, size, direction,
lighting and noise. Its class is its shape, then its colour, then its pattern: ten shapes make 10
classes, in ten colours 100, and plain or striped 200. Everything that the class does not determine
is random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
Shape = Callable[[Array, Array], Array]
"""Maps coordinates, in which an object has radius 1, to the signed distance from its edge.

The distance is positive inside, and only exact near the edge.
"""

VERSION = 1
"""Increased when the images change."""

CHUNK = 256
"""Images drawn at a time."""


def _disc(x: Array, y: Array) -> Array:
    margin: Array = 1 - np.hypot(x, y)
    return margin


def _ring(x: Array, y: Array) -> Array:
    margin: Array = 0.25 - np.abs(np.hypot(x, y) - 0.75)
    return margin


def _crescent(x: Array, y: Array) -> Array:
    margin: Array = np.minimum(_disc(x, y), np.hypot(x - 0.6, y) - 0.75)
    return margin


def _half_disc(x: Array, y: Array) -> Array:
    margin: Array = np.minimum(_disc(x, y), x + 0.1)
    return margin


def _polygon(corners: int) -> Shape:
    angles = 2 * np.pi * np.arange(corners) / corners

    def margin(x: Array, y: Array) -> Array:
        sides = [x * np.float32(np.cos(a)) + y * np.float32(np.sin(a)) for a in angles]
        inside: Array = np.float32(np.cos(np.pi / corners)) - np.maximum.reduce(sides)
        return inside

    return margin


def _star(x: Array, y: Array) -> Array:
    return np.maximum(_polygon(3)(x, y), _polygon(3)(-x, y))


def _bar(x: Array, y: Array) -> Array:
    margin: Array = np.minimum(1 - np.abs(x), 0.3 - np.abs(y))
    return margin


def _cross(x: Array, y: Array) -> Array:
    return np.maximum(_bar(x, y), _bar(y, x))


def _hourglass(x: Array, y: Array) -> Array:
    return np.minimum(0.8 - np.abs(y), 0.8 * np.abs(y) + 0.1 - np.abs(x))


SHAPES: Mapping[str, Shape] = {
    "disc": _disc,
    "ring": _ring,
    "crescent": _crescent,
    "half disc": _half_disc,
    "triangle": _polygon(3),
    "square": _polygon(4),
    "star": _star,
    "bar": _bar,
    "cross": _cross,
    "hourglass": _hourglass,
}
COLOURS = 10
"""Hues around the colour circle."""


def draw(
    count: int, classes: int, size: int, noise: float, seed: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Draw images of all classes, as equal in number as possible.

    Args:
        count: number of images.
        classes: 10, 100 or 200.
        size: pixels of a side.
        noise: standard deviation of the noise in each channel, of 1.
        seed: seed of everything random; parts with different seeds have no image in common.

    Returns:
        Images (count, 3, size, size) with values from 0 to 255, and their labels (count,).
    """
    random = np.random.Generator(np.random.PCG64(seed))
    labels = random.permutation(np.arange(count) % classes)
    # Objects of one shape are drawn together, in chunks that fit the processor's cache.
    images = np.empty((count, 3, size, size), np.uint8)
    for number, shape in enumerate(SHAPES.values()):
        members = np.flatnonzero(labels % len(SHAPES) == number)
        for start in range(0, len(members), CHUNK):
            chosen = members[start : start + CHUNK]
            images[chosen] = _drawn(shape, labels[chosen], classes, size, noise, random)
    return images, labels


def _drawn(
    shape: Shape,
    labels: npt.NDArray[np.int64],
    classes: int,
    size: int,
    noise: float,
    random: np.random.Generator,
) -> npt.NDArray[np.uint8]:
    """Draw images of one shape."""
    count = len(labels)

    def uniform(low: float, high: float) -> Array:
        """Return a random number for each image (count, 1, 1)."""
        return random.uniform(low, high, (count, 1, 1)).astype(np.float32)

    pixels = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1)[None, :]
    x, y = pixels[:, None, :], pixels[:, :, None]
    ground = _pattern(x, y, uniform(0, np.pi), uniform(3, 12), uniform(0, 2 * np.pi))
    radius = uniform(0.45, 0.75)
    angle = uniform(0, 2 * np.pi)
    away_x, away_y = x - uniform(-0.25, 0.25), y - uniform(-0.25, 0.25)
    along = (np.cos(angle) * away_x + np.sin(angle) * away_y) / radius
    across = (np.cos(angle) * away_y - np.sin(angle) * away_x) / radius
    cover = np.clip(shape(along, across) * radius * size / 2 + 0.5, 0, 1)

    kind = (labels // len(SHAPES))[:, None, None]
    hue = uniform(0, 1)
    if classes > len(SHAPES):
        hue = ((kind % COLOURS + uniform(-0.4, 0.4)) / COLOURS).astype(np.float32)
    striped = random.integers(0, 2, (count, 1, 1))
    if classes > len(SHAPES) * COLOURS:
        striped = kind // COLOURS
    stripes = _pattern(along, across, uniform(0, np.pi), uniform(7, 9), uniform(0, 2 * np.pi))
    surface = 1 - 0.7 * striped * stripes
    light = 1 + uniform(-0.3, 0.3) * x + uniform(-0.3, 0.3) * y
    object_colour = _colour(hue, uniform(0.7, 1))
    ground_colour = _colour(uniform(0, 1), uniform(0, 0.5))
    shaded_ground = 1 - uniform(0.2, 0.6) * ground
    image = np.stack(
        [
            light * (cover * surface * of_object + (1 - cover) * shaded_ground * of_ground)
            for of_object, of_ground in zip(object_colour, ground_colour, strict=True)
        ],
        axis=1,
    )
    image *= uniform(0.5, 0.9)[:, None]
    image += np.float32(noise) * random.standard_normal(image.shape, np.float32)
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def _pattern(x: Array, y: Array, angle: Array, frequency: Array, phase: Array) -> Array:
    """Return soft stripes between 0 and 1; the frequency is in radians for a length of 1."""
    waves = np.sin(frequency * (np.cos(angle) * x + np.sin(angle) * y) + phase)
    return (waves + 1) / 2


def _colour(hue: Array, saturation: Array) -> tuple[Array, Array, Array]:
    """Return red, green and blue of a colour with full value (Smith, SIGGRAPH 1978)."""

    def channel(offset: int) -> Array:
        sector = (hue * 6 + offset) % 6
        value: Array = 1 - saturation * np.clip(np.minimum(sector, 4 - sector), 0, 1)
        return value

    return channel(5), channel(3), channel(1)
