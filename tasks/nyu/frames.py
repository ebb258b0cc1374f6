"""Frames with a file each, in the folders in which sparse-to-dense (ICRA 2018) published NYU's.

``train/SCENE/00001.h5`` and ``val/official/00001.h5``, each with ``rgb`` (3, height, width) and
``depth`` (height, width) in metres, 0 where unknown.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.data.description import listed
from harness.errors import RequestError
from tasks.nyu import hdf5


class SingleFrames:
    """The frames of a folder, those for training first.

    Args:
        folder: with the folders ``train`` and ``val``.

    Raises:
        RequestError: there are no frames.
    """

    def __init__(self, folder: Path) -> None:
        self._train = listed(folder, "train/*/*.h5")
        self._test = listed(folder, "val/official/*.h5")
        for files, pattern in ((self._train, "train/SCENE"), (self._test, "val/official")):
            if not files:
                raise RequestError(f"nyu: there are no files {folder}/{pattern}/*.h5")
        self._folder = folder
        self._files = self._train + self._test
        self.scenes = [file.parent.name for file in self._files]
        self._shape = self._shape_of_first()

    def split(self) -> tuple[list[int], list[int]]:
        """Return the numbers of the frames for training and for tests."""
        return [*range(len(self._train))], [*range(len(self._train), len(self._files))]

    def image(self, number: int) -> npt.NDArray[np.uint8]:
        """Return the picture (3, height, width) of a frame."""
        with hdf5.opened(self._files[number]) as file:
            return hdf5.read(hdf5.dataset(file, "rgb", np.uint8, (3, *self._shape)))

    def depth(self, number: int) -> npt.NDArray[np.float32]:
        """Return the depth (height, width) of a frame in metres, 0 where unknown."""
        with hdf5.opened(self._files[number]) as file:
            return hdf5.read_depths(hdf5.dataset(file, "depth", np.float32, self._shape))

    def fingerprint(self) -> str:
        """Return a hash of the names and sizes of all files."""
        lines = (
            f"{f.relative_to(self._folder).as_posix()} {f.stat().st_size}" for f in self._files
        )
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    def key(self) -> str:
        """Return a hash that files of the same names and sizes elsewhere, or later, do not have."""
        times = " ".join(str(file.stat().st_mtime_ns) for file in self._files)
        text = f"{self.fingerprint()} {self._folder.resolve()} {times}"
        return hashlib.sha256(os.fsencode(text)).hexdigest()

    def _shape_of_first(self) -> tuple[int, int]:
        with hdf5.opened(self._files[0]) as file:
            height, width = hdf5.dataset(file, "depth", np.float32, (None, None)).shape
        return height, width
