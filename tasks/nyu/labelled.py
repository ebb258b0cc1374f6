"""The 1,449 labelled frames of NYU Depth v2 (Silberman et al., ECCV 2012), in MATLAB's files."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import scipy.io
from scipy.io.matlab import MatReadError

from harness.errors import RequestError
from tasks.nyu import hdf5

FRAMES, SPLIT = "nyu_depth_v2_labeled.mat", "splits.mat"
HEIGHT, WIDTH = 480, 640


class LabelledFrames:
    """The frames of a ``.mat`` file of version 7.3, which is HDF5; read one by one.

    MATLAB writes the last axis first, so that HDF5 shows all axes in reverse.

    Args:
        path: of the file.

    Raises:
        RequestError: it is missing, damaged, or not as published.
    """

    def __init__(self, path: Path) -> None:
        self._file = hdf5.opened(path)
        self._images = hdf5.dataset(self._file, "images", np.uint8, (None, 3, WIDTH, HEIGHT))
        self._depths = hdf5.dataset(self._file, "depths", np.float32, (None, WIDTH, HEIGHT))
        scenes = hdf5.dataset(self._file, "scenes", h5py.ref_dtype, (1, None))
        counts = {len(self._images), len(self._depths), scenes.shape[1]}
        if len(counts) > 1:
            raise RequestError(
                f"nyu: {path} has {len(self._images)} images, {len(self._depths)} depths "
                f"and {scenes.shape[1]} scenes, which do not pair"
            )
        try:
            self.scenes = [_text(self._file[name]) for name in hdf5.read(scenes)[0]]
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise RequestError(f"nyu: {path}: 'scenes' are no names: {error}") from None

    def image(self, number: int) -> npt.NDArray[np.uint8]:
        """Return the picture (3, 480, 640) of a frame."""
        return hdf5.read(self._images, number).transpose(0, 2, 1)

    def depth(self, number: int) -> npt.NDArray[np.float32]:
        """Return the depth (480, 640) of a frame in metres, 0 where unknown."""
        return hdf5.read_depths(self._depths, number).T


def official_split(path: Path, frames: int) -> tuple[list[int], list[int]]:
    """Return the numbers of the frames for training and for tests, from 0.

    Args:
        path: of the official ``splits.mat``, which counts from 1.
        frames: how many there are.

    Raises:
        RequestError: it is missing, damaged, or not as published.
    """
    contents = _contents(path)
    numbers = []
    for name in ("trainNdxs", "testNdxs"):
        if name not in contents:
            raise RequestError(f"nyu: {path} has no {name!r}")
        values = contents[name]
        if not (isinstance(values, np.ndarray) and values.dtype.kind in "iuf" and values.size):
            raise RequestError(f"nyu: {path}: {name!r} holds no numbers of frames")
        numbers.append((values.flatten().astype(float) - 1).tolist())
    train, test = numbers
    outside = [n + 1 for n in (*train, *test) if n not in range(frames)]
    if outside:
        raise RequestError(
            f"nyu: {path} names frame {outside[0]:g}, where the frames are 1 to {frames}"
        )
    train, test = [int(n) for n in train], [int(n) for n in test]
    both = set(train) & set(test)
    if both:
        raise RequestError(f"nyu: {path} has frame {min(both) + 1} in training and in tests")
    return train, test


def _contents(path: Path) -> dict[str, Any]:
    try:
        contents: dict[str, Any] = scipy.io.loadmat(path, appendmat=False)
    except FileNotFoundError:
        raise RequestError(f"nyu: {path} is not there") from None
    except (OSError, ValueError, TypeError, NotImplementedError, MatReadError, zlib.error) as error:
        raise RequestError(
            f"nyu: {path} is truncated or no MATLAB file of version 5: {error}"
        ) from None
    return contents


def _text(characters: h5py.Dataset) -> str:
    return "".join(map(chr, hdf5.read(characters).flatten()))
