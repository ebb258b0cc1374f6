"""Frames as arrays on the disk, by the parts into which they are divided.

A frame is kept at half its resolution, by every second pixel: that is what the published
networks see. Depths of frames that are tested on stay whole, since the official protocol compares
all of their pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from harness.data.decoded import Save, decoded
from tasks.nyu.crop import HALF

PARTS = ("train", "validation", "test")


class Frames(Protocol):
    """What a reader gives."""

    @property
    def scenes(self) -> Sequence[str]:
        """The scene of each frame."""

    def image(self, number: int) -> npt.NDArray[np.uint8]:
        """Return a picture (3, height, width)."""

    def depth(self, number: int) -> npt.NDArray[np.float32]:
        """Return a depth (height, width) in metres, 0 where unknown."""


@dataclass(frozen=True)
class Collection:
    """Frames, and the numbers of those in each of the `PARTS`."""

    frames: Frames
    parts: Mapping[str, Sequence[int]]


class Part(NamedTuple):
    """Decoded frames: (frames, 3, height / 2, width / 2), and their depths in metres."""

    images: npt.NDArray[np.uint8]
    depths: npt.NDArray[np.float32]
    """Half the resolution for training, the whole otherwise; 0 where unknown."""


def decoded_parts(
    folder: Path, opened: Callable[[], AbstractContextManager[Collection]]
) -> dict[str, Part]:
    """Return the parts of a collection, which is opened and decoded if the folder is not there.

    Args:
        folder: where the arrays lie.
        opened: gives the frames.

    Raises:
        RequestError: a frame is damaged, or the folder is or cannot be written.
    """

    def decode(save: Save) -> None:
        with opened() as collection:
            frames = collection.frames
            for name, numbers in collection.parts.items():
                halved = name == "train"
                save(f"{name}/images", lambda n: frames.image(n)[HALF], numbers)
                save(
                    f"{name}/depths",
                    (lambda n: frames.depth(n)[HALF]) if halved else frames.depth,
                    numbers,
                )

    names = [f"{part}/{field}" for part in PARTS for field in Part._fields]
    arrays = decoded(folder, names, decode)
    return {part: Part(*(arrays[f"{part}/{field}"] for field in Part._fields)) for part in PARTS}
