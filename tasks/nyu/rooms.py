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

FRAME = (120, 160)
FOCAL_LENGTH = 518.86 / 4
"""Pixels; NYU's camera has 518.86 for 640 of them."""
HEIGHT_OF_EYE = (1.1, 1.7)
"""Metres."""
NEAREST = 0.5
"""Metres to what is nearest in a view."""
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
    return max(rooms // 4, 2)


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
    furniture = int(generator.integers(4, 9))
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
    tiles = generator.uniform(0.15, 0.6, (boxes, 6, 2))
    tiles[generator.random((boxes, 6, 2)) < 0.25] = np.inf
    base = generator.uniform(0.25, 0.95, (boxes, 1, 1, 3))
    colours = (base + generator.normal(0, 0.15, (boxes, 6, 2, 3))).clip(0.05, 1)
    lamp = size * (*generator.uniform(0.3, 0.7, 2), 0.95)
    lower, upper = np.vstack([np.zeros(3), corner]), np.vstack([size, corner + extent])
    return Room(*(part.astype(np.float32) for part in (lower, upper, colours, tiles, lamp)))


def photograph(room: Room, generator: np.random.Generator) -> tuple[npt.NDArray[np.uint8], Floats]:
    """Return a picture (3, height, width) and its depth in metres, from a random place."""
    while True:
        eye = generator.uniform((0.3, 0.3, 0), room.upper[0] - np.float32(0.3)).astype(np.float32)
        eye[2] = generator.uniform(*HEIGHT_OF_EYE)
        yaw, pitch = generator.uniform((0, -0.35), (2 * math.pi, 0.1))
        rays = _rays(yaw, pitch)
        depth, box, axis = _first_hits(room, eye, rays)
        if depth.min() > NEAREST and not _is_inside(room, eye):
            break
    light = _shaded(room, eye, rays, depth, box, axis)
    noisy = 255 * light + generator.normal(0, NOISE, light.shape)
    image = noisy.clip(0, 255).astype(np.uint8).reshape(*FRAME, 3).transpose(2, 0, 1)
    return image, depth.reshape(FRAME)


def _rays(yaw: float, pitch: float) -> Floats:
    """Return a ray (pixels, 3) for each pixel, of length 1 along the axis of the camera.

    A multiple of it is therefore the depth: the distance from the plane of the camera.
    """
    forward = np.array(
        [math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), math.sin(pitch)]
    )
    right = np.array([math.sin(yaw), -math.cos(yaw), 0])
    down = np.cross(forward, right)
    height, width = FRAME
    v, u = (np.arange(n) - (n - 1) / 2 for n in (height, width))
    rays = forward + (u[:, None] * right + v[:, None, None] * down) / FOCAL_LENGTH
    # A ray along a face would be divided by 0.
    rays[np.abs(rays) < 1e-6] = 1e-6
    return rays.reshape(-1, 3).astype(np.float32)


def _first_hits(
    room: Room, eye: Floats, rays: Floats
) -> tuple[Floats, npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return depth, box and axis of the face that each ray meets first, (pixels,) each."""
    to_lower, to_upper = ((face[:, None] - eye) / rays for face in (room.lower, room.upper))
    entries, exits = np.minimum(to_lower, to_upper), np.maximum(to_lower, to_upper)
    entry, exit_ = entries.max(2), exits.min(2)
    depths = np.where((entry < exit_) & (entry > 0), entry, np.inf)
    depths[0] = exit_[0]
    box = depths.argmin(0)
    pixels = np.arange(len(rays))
    axis = np.where(box == 0, exits[0].argmin(1), entries[box, pixels].argmax(1))
    return depths[box, pixels], box, axis


def _is_inside(room: Room, eye: Floats) -> bool:
    """Tell whether a place is inside of furniture."""
    inside = (room.lower[1:] < eye) & (eye < room.upper[1:])
    return bool(inside.all(1).any())


def _shaded(
    room: Room,
    eye: Floats,
    rays: Floats,
    depth: Floats,
    box: npt.NDArray[np.intp],
    axis: npt.NDArray[np.intp],
) -> Floats:
    """Return the light (pixels, 3) that reaches the camera, from 0 to 1."""
    pixels = np.arange(len(rays))
    points = eye + depth[:, None] * rays
    outwards = rays[pixels, axis] > 0
    face = 2 * axis + np.where(box == 0, outwards, ~outwards)
    others = np.array([[1, 2], [0, 2], [0, 1]])[axis]
    along = np.take_along_axis(points, others, axis=1)
    odd = np.floor(along / room.tiles[box, face]).astype(np.int64).sum(1) % 2
    colour = room.colours[box, face, odd]
    to_lamp = room.lamp - points
    distance = np.linalg.norm(to_lamp, axis=1)
    facing = to_lamp[pixels, axis] * np.where(outwards, -1, 1)
    lambert = (facing / distance).clip(0) / (1 + 0.15 * distance**2)
    return colour * (0.35 + 0.9 * lambert)[:, None]
