"""Frames as arrays on the disk, decoded once and mapped into memory.

A frame is kept at half its resolution, by every second pixel: that is what the published
networks see. Depths of frames that are tested on stay whole, since the official protocol compares
all of their pixels.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from harness.errors import RequestError
from tasks.nyu.crop import HALF


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
    """Frames, and the numbers of those in each part: train, validation and test."""

    frames: Frames
    parts: Mapping[str, Sequence[int]]


class Part(NamedTuple):
    """Decoded frames: (frames, 3, height / 2, width / 2), and their depths in metres."""

    images: npt.NDArray[np.uint8]
    depths: npt.NDArray[np.float32]
    """Half the resolution for training, the whole otherwise; 0 where unknown."""


def decoded(
    folder: Path, opened: Callable[[], AbstractContextManager[Collection]]
) -> dict[str, Part]:
    """Return the parts of a collection, which is opened and decoded if the folder is not there.

    Of several processes one decodes, and the others wait for it.

    Args:
        folder: where the arrays lie.
        opened: gives the frames.

    Raises:
        RequestError: a frame is damaged, or the folder cannot be written.
    """
    if not folder.exists():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_name(f"{folder.name}.lock")):
                if not folder.exists():
                    with opened() as collection:
                        _decode(collection, folder)
        except OSError as error:
            raise RequestError(f"nyu: cannot write {folder}: {error.strerror or error}") from error
    return {path.name: Part(*_mapped(path)) for path in folder.iterdir()}


def _decode(collection: Collection, folder: Path) -> None:
    """Write the arrays into a folder that appears when it is whole."""
    frames = collection.frames
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for name, numbers in collection.parts.items():
        part = unfinished / name
        part.mkdir(parents=True)
        whole = name != "train"
        _write(part / "images.npy", (frames.image(n)[HALF] for n in numbers), len(numbers))
        depths = (frames.depth(n) if whole else frames.depth(n)[HALF] for n in numbers)
        _write(part / "depths.npy", depths, len(numbers))
    unfinished.replace(folder)


def _write(path: Path, arrays: Iterator[npt.NDArray[Any]], count: int) -> None:
    """Write arrays of one shape as one array, one after the other: memory holds one at a time."""
    first = next(arrays)
    header = {
        "descr": np.lib.format.dtype_to_descr(first.dtype),
        "fortran_order": False,
        "shape": (count, *first.shape),
    }
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for array in chain([first], arrays):
            file.write(array.tobytes())


def _mapped(part: Path) -> list[npt.NDArray[Any]]:
    try:
        # Copy on write: torch wants arrays that could be written.
        return [np.load(part / f"{name}.npy", mmap_mode="c") for name in Part._fields]
    except (OSError, ValueError) as error:
        raise RequestError(
            f"nyu: {part.parent} is damaged; remove it to decode it anew: {error}"
        ) from None
