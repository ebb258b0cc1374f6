"""Readers of NYU Depth v2: the labelled MATLAB file, and an HDF5 file for each frame.

Everything wrong with a file is reported in one line.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import scipy.io
from scipy.io.matlab import MatReadError

from harness.data.description import APPLE_DOUBLE, listed
from harness.errors import RequestError

HEIGHT, WIDTH = 480, 640
"""Pixels of a labelled frame."""

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
"""The errors of file systems that cannot lock files."""


class LabelledFrames:
    """The 1,449 labelled frames (Silberman et al., ECCV 2012), read one by one.

    The file is a ``.mat`` file of version 7.3, which is HDF5. MATLAB writes the last axis first,
    so HDF5 shows all axes in reverse.

    Args:
        path: the file.

    Raises:
        RequestError: the file is missing, damaged, or not as published.
    """

    def __init__(self, path: Path) -> None:
        self._file = open_file(path)
        self._images = find_dataset(self._file, "images", np.uint8, (None, 3, WIDTH, HEIGHT))
        self._depths = find_dataset(self._file, "depths", np.float32, (None, WIDTH, HEIGHT))
        scenes = find_dataset(self._file, "scenes", h5py.ref_dtype, (1, None))
        counts = {len(self._images), len(self._depths), scenes.shape[1]}
        if len(counts) > 1:
            raise RequestError(
                f"nyu: {path} has {len(self._images)} images, {len(self._depths)} depths "
                f"and {scenes.shape[1]} scenes, which do not match"
            )
        try:
            self.scenes = [_text(self._file[name]) for name in read_dataset(scenes)[0]]
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise RequestError(f"nyu: {path}: 'scenes' are not names: {error}") from None

    def image(self, number: int) -> npt.NDArray[np.uint8]:
        """Return the picture (3, 480, 640) of a frame."""
        return read_dataset(self._images, number).transpose(0, 2, 1)

    def depth(self, number: int) -> npt.NDArray[np.float32]:
        """Return the depth (480, 640) of a frame in metres, 0 where unknown."""
        return read_depths(self._depths, number).T


def official_split(path: Path, frames: int) -> tuple[list[int], list[int]]:
    """Return the numbers of the frames for training and for the test, counted from 0.

    Args:
        path: the official ``splits.mat``, which counts from 1.
        frames: the number of frames.

    Raises:
        RequestError: the file is missing, damaged, or not as published.
    """
    contents = _contents(path)
    numbers = []
    for name in ("trainNdxs", "testNdxs"):
        if name not in contents:
            raise RequestError(f"nyu: {path} has no {name!r}")
        values = contents[name]
        if not (isinstance(values, np.ndarray) and values.dtype.kind in "iuf" and values.size):
            raise RequestError(f"nyu: {path}: {name!r} does not hold frame numbers")
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
        raise RequestError(f"nyu: {path} has frame {min(both) + 1} in both training and test")
    return train, test


def _contents(path: Path) -> dict[str, Any]:
    try:
        contents: dict[str, Any] = scipy.io.loadmat(path, appendmat=False)
    except FileNotFoundError:
        raise RequestError(f"nyu: {path} does not exist") from None
    except (OSError, ValueError, TypeError, NotImplementedError, MatReadError, zlib.error) as error:
        raise RequestError(
            f"nyu: {path} is truncated, or not a MATLAB file of version 5: {error}"
        ) from None
    return contents


def _text(characters: h5py.Dataset) -> str:
    return "".join(map(chr, read_dataset(characters).flatten()))


class SingleFrames:
    """Frames with a file each, in the layout of sparse-to-dense (ICRA 2018), training first.

    The files are ``train/SCENE/00001.h5`` and ``val/official/00001.h5``, each with ``rgb``
    (3, height, width) and ``depth`` (height, width) in metres, 0 where unknown.

    Args:
        folder: the folder of ``train`` and ``val``.

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
        """Return the numbers of the frames for training and for the test."""
        return [*range(len(self._train))], [*range(len(self._train), len(self._files))]

    def image(self, number: int) -> npt.NDArray[np.uint8]:
        """Return the picture (3, height, width) of a frame."""
        with open_file(self._files[number]) as file:
            return read_dataset(find_dataset(file, "rgb", np.uint8, (3, *self._shape)))

    def depth(self, number: int) -> npt.NDArray[np.float32]:
        """Return the depth (height, width) of a frame in metres, 0 where unknown."""
        with open_file(self._files[number]) as file:
            return read_depths(find_dataset(file, "depth", np.float32, self._shape))

    def fingerprint(self) -> str:
        """Return a hash of the names and sizes of all files."""
        lines = (
            f"{f.relative_to(self._folder).as_posix()} {f.stat().st_size}" for f in self._files
        )
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    def key(self) -> str:
        """Return a hash of the fingerprint, the folder and the times of the files."""
        times = " ".join(str(file.stat().st_mtime_ns) for file in self._files)
        text = f"{self.fingerprint()} {self._folder.resolve()} {times}"
        return hashlib.sha256(os.fsencode(text)).hexdigest()

    def _shape_of_first(self) -> tuple[int, int]:
        with open_file(self._files[0]) as file:
            height, width = find_dataset(file, "depth", np.float32, (None, None)).shape
        return height, width


def open_file(path: Path) -> h5py.File:
    """Open an HDF5 file for reading.

    Raises:
        RequestError: the file is missing, locked, not readable, truncated, or not HDF5.
    """
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if "unable to lock" in str(error) and error.errno in _NO_LOCKS:
            return _opened_without_lock(path)
        raise _complaint(path, error) from None


def _opened_without_lock(path: Path) -> h5py.File:
    """Open a file on a file system that cannot lock."""
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        raise _complaint(path, error) from None


def _complaint(path: Path, error: OSError) -> RequestError:
    """Turn h5py's long error about a file that cannot be opened into one line."""
    said = _one_line(error)
    if isinstance(error, FileNotFoundError):
        return RequestError(f"nyu: {path} does not exist")
    if "unable to lock" in said or "already open for write" in said:
        return RequestError(
            f"nyu: {path} is locked: another program has it open for writing, "
            "or did not close it after writing"
        )
    if error.errno is not None:
        return RequestError(f"nyu: cannot read {path}: {os.strerror(error.errno)}")
    if _beginning(path) == APPLE_DOUBLE:
        return RequestError(f"nyu: {path} is a metadata file of macOS, not an HDF5 file")
    return RequestError(f"nyu: {path} is truncated, or not an HDF5 file: {said}")


def _beginning(path: Path) -> bytes:
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(len(APPLE_DOUBLE))
    return b""


def find_dataset(
    file: h5py.File, name: str, dtype: npt.DTypeLike, shape: Sequence[int | None]
) -> h5py.Dataset:
    """Return a data set of a file, without reading its values.

    Args:
        file: an open file.
        name: the name of the data set.
        dtype: its type.
        shape: its shape; None for any length.

    Raises:
        RequestError: the data set is missing, or has another type or shape.
    """
    try:
        found = file.get(name)
        if not isinstance(found, h5py.Dataset):
            raise RequestError(f"nyu: {file.filename} has no data set {name!r}")
        found_shape, found_dtype = found.shape or (), found.dtype
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise RequestError(
            f"nyu: {file.filename}: {name!r} cannot be read: {_one_line(error)}"
        ) from None
    fits = len(found_shape) == len(shape) and all(
        size > 0 and wanted in (None, size) for wanted, size in zip(shape, found_shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("n" if size is None else str(size) for size in shape)
        raise RequestError(
            f"nyu: {file.filename}: {name!r} has the shape {found_shape}, not ({wanted})"
        )
    if found_dtype != np.dtype(dtype):
        raise RequestError(
            f"nyu: {file.filename}: {name!r} holds {found_dtype}, not {np.dtype(dtype)}"
        )
    return found


def read_dataset(data: h5py.Dataset, *numbers: int) -> npt.NDArray[Any]:
    """Return the values of a data set, or of its part with these first indices.

    Raises:
        RequestError: the values are damaged.
    """
    try:
        values: npt.NDArray[Any] = data[numbers]
    except OSError as error:
        raise RequestError(
            f"nyu: {data.file.filename}: {data.name.lstrip('/')!r} cannot be read: "
            f"{_one_line(error)}"
        ) from None
    return values


def read_depths(data: h5py.Dataset, *numbers: int) -> npt.NDArray[np.float32]:
    """Return depths like `read_dataset`, with 0 for unknown: negative, NaN or infinite.

    Raises:
        RequestError: as for `read_dataset`.
    """
    depths: npt.NDArray[np.float32] = read_dataset(data, *numbers)
    return np.where(np.isfinite(depths) & (depths > 0), depths, np.float32(0))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
