"""Rooms that look a little like those of NYU Depth v2, rendered with their exact depth.

A room is a box with textured walls and a lamp under its ceiling; furniture are boxes that stand on
the floor or hang on a wall. Each pixel's ray is cut with all of them, so that its depth is exact.
Everything is a function of the room's number. The files are those of the NYU h5 format, at a
quarter of its resolution and with the field of view of its camera.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]

ALONG = np.array([(1, 2), (0, 2), (0, 1)])
"""The two axes along a face, by the axis across it."""

FRAME = (120, 160)
FOCAL_LENGTH = 518.86 / 4
"""Pixels; NYU's camera has 518.86 for 640 of them."""
HEIGHT_OF_EYE = (1.3, 1.5)
"""Metres."""
NEAREST, USUAL_DEPTH = 0.5, 1.5
"""Metres that the least and the median depth of a view exceed, in a glance."""
GLANCE = 13
"""Of so many pixels one is looked at before a picture is taken."""
TILE = 0.3
"""Metres of the side of a tile, or the width of a stripe, on whatever surface."""
NOISE = 3.0
"""Standard deviation of a pixel, of 255."""


@dataclass(frozen=True)
class Room:
    """Boxes with textured faces and a lamp; lengths in metres, the third axis points up.

    The first box is the room itself, seen from inside, with a corner at the origin. Face 2a of a
    box is that whose outward normal points down axis a, face 2a + 1 the opposite one.
    """

    lower: Floats
    """(boxes, 3)"""
    upper: Floats
    """(boxes, 3)"""
    colours: Floats
    """Two for each face, from 0 to 1: (boxes, 6, 2, 3)."""
    tiles: Floats
    """The length and width of a face's tiles; what is infinite makes stripes: (boxes, 6, 2)."""
    lamp: Floats
    """(3,)"""


def fingerprint(rooms: int, views: int) -> str:
    """Return a hash of all that decides the pictures."""
    code = Path(__file__).read_bytes()
    return hashlib.sha256(code + f"{rooms} rooms, {views} views".encode()).hexdigest()


def held_out(rooms: int) -> int:
    """Return how many further rooms are only seen in tests."""
    return max(rooms // 8, 2)


def write(folder: Path, rooms: int, views: int) -> None:
    """Write ``views`` pictures of each room, and of others for tests, in the NYU h5 format."""
    for number in range(rooms):
        _write_views(folder / "train" / f"room_{number + 1:04}", 1, number, views)
    for number in range(held_out(rooms)):
        _write_views(folder / "val" / "official", number * views + 1, rooms + number, views)


def _write_views(folder: Path, first: int, room_number: int, views: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(room_number)
    room = furnished(generator)
    for view in range(views):
        image, depth = photograph(room, generator)
        with h5py.File(folder / f"{first + view:05}.h5", "w") as file:
            file.create_dataset("rgb", data=image)
            file.create_dataset("depth", data=depth)


def furnished(generator: np.random.Generator) -> Room:
    """Return a room with furniture along its walls and in its middle."""
    size = generator.uniform((3.0, 3.0, 2.4), (6.5, 6.5, 3.0))
    furniture = int(generator.integers(2, 6))
    extent = generator.uniform((0.4, 0.4, 0.35), (2.0, 1.1, 2.1), (furniture, 3))
    swapped = generator.random(furniture) < 0.5
    extent[swapped, :2] = extent[swapped, 1::-1]
    corner = generator.random((furniture, 3)) * (size - extent)
    # Most furniture stands at one of the four walls, and most on the floor.
    axis, far = generator.integers(0, 2, (2, furniture))
    at_wall = np.flatnonzero(generator.random(furniture) < 0.8)
    corner[at_wall, axis[at_wall]] = (far[:, None] * (size - extent)[:, :2])[at_wall, axis[at_wall]]
    corner[generator.random(furniture) < 0.85, 2] = 0
    boxes = furniture + 1
    colours, tiles = _textures(boxes, generator)
    lamp = size * (*generator.uniform(0.3, 0.7, 2), 0.95)
    lower, upper = np.vstack([np.zeros(3), corner]), np.vstack([size, corner + extent])
    return Room(*(part.astype(np.float32) for part in (lower, upper, colours, tiles, lamp)))


def _textures(boxes: int, generator: np.random.Generator) -> tuple[npt.NDArray[np.float64], ...]:
    """Return colours and tiles: pale walls, a brown floor, a white ceiling, colourful furniture."""
    colours = generator.uniform(0.15, 0.9, (boxes, 6, 1, 3))
    colours[0] = generator.uniform(0.6, 0.9, (1, 1, 3)) + generator.normal(0, 0.04, (6, 1, 3))
    colours[0, 4] = np.array([0.55, 0.4, 0.25]) * generator.uniform(0.7, 1.3)
    colours[0, 5] = 0.9
    contrast = generator.uniform(0.6, 0.9, (boxes, 6, 1, 1))
    tiles = np.where(generator.random((boxes, 6, 2)) < 0.25, np.inf, TILE)
    return np.concatenate([colours, contrast * colours], axis=2).clip(0, 1), tiles


def photograph(room: Room, generator: np.random.Generator) -> tuple[npt.NDArray[np.uint8], Floats]:
    """Return a picture (3, height, width) and its depth in metres, from a random place.

    It is not from within furniture, and not of a wall close by.
    """
    while True:
        eye = generator.uniform((0.3, 0.3, 0), room.upper[0] - np.float32(0.3)).astype(np.float32)
        eye[2] = generator.uniform(*HEIGHT_OF_EYE)
        rays = _rays(*generator.uniform((0, -0.3), (2 * math.pi, 0.0)))
        some, _, _ = first_hits(room, eye, rays[:, ::GLANCE])
        if some.min() > NEAREST and np.median(some) > USUAL_DEPTH and not _is_inside(room, eye):
            break
    depth, box, axis = first_hits(room, eye, rays)
    light = _shaded(room, eye + (depth * rays).T, rays, box, axis)
    noisy = 255 * light + generator.normal(0, NOISE, light.shape)
    image = noisy.clip(0, 255).astype(np.uint8)
    return image.T.reshape(3, *FRAME), depth.reshape(FRAME)


def _rays(yaw: float, pitch: float) -> Floats:
    """Return a ray for each pixel, of length 1 along the axis of the camera: (3, pixels).

    A multiple of it is therefore the depth: the distance from the plane of the camera.
    """
    forward = np.array(
        [math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), math.sin(pitch)]
    )
    right = np.array([math.sin(yaw), -math.cos(yaw), 0])
    down = np.cross(forward, right)
    v, u = (np.arange(n) - (n - 1) / 2 for n in FRAME)
    rays = forward + (u[:, None] * right + v[:, None, None] * down) / FOCAL_LENGTH
    # A ray along a face would be divided by 0.
    rays[np.abs(rays) < 1e-6] = 1e-6
    return np.ascontiguousarray(rays.reshape(-1, 3).T, dtype=np.float32)


def first_hits(room: Room, eye: Floats, rays: Floats) -> tuple[Floats, Indices, Indices]:
    """Return what each ray meets first.

    Args:
        room: with (boxes, 3) corners.
        eye: where rays begin, (3,).
        rays: their directions, (3, pixels), none of them 0.

    Returns:
        The multiple of the ray, the box, and the axis of its face; (pixels,) each.
    """
    inverse = 1 / rays
    to_lower, to_upper = ((face - eye)[:, :, None] * inverse for face in (room.lower, room.upper))
    entries, exits = np.minimum(to_lower, to_upper), np.maximum(to_lower, to_upper)
    entry, exit_ = entries.max(1), exits.min(1)
    depths = np.where((entry < exit_) & (entry > 0), entry, np.float32(np.inf))
    depths[0] = exit_[0]
    box = depths.argmin(0)
    pixels = np.arange(rays.shape[1])
    faces = np.where(box == 0, exits[0], -entries[box, :, pixels].T)
    return depths[box, pixels], box, faces.argmin(0)


def _is_inside(room: Room, eye: Floats) -> bool:
    """Tell whether a place is inside of furniture."""
    inside = (room.lower[1:] < eye) & (eye < room.upper[1:])
    return bool(inside.all(1).any())


def _shaded(room: Room, points: Floats, rays: Floats, box: Indices, axis: Indices) -> Floats:
    """Return the light (pixels, 3) that comes from points (pixels, 3), from 0 to 1."""
    pixels = np.arange(len(points))
    outwards = rays[axis, pixels] > 0
    face = 2 * axis + np.where(box == 0, outwards, ~outwards)
    along = points[pixels[:, None], ALONG[axis]]
    odd = np.floor(along / room.tiles[box, face]).astype(np.int64).sum(1) % 2
    to_lamp = room.lamp - points
    distance = np.sqrt(np.square(to_lamp).sum(1))
    facing = to_lamp[pixels, axis] * np.where(outwards, -1, 1)
    lambert = (facing / distance).clip(0) / (1 + 0.15 * distance**2)
    light: Floats = room.colours[box, face, odd] * (0.35 + 0.9 * lambert)[:, None]
    return light
