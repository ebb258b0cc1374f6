"""HDF5 files whose faults are said in one line."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from harness.data.description import APPLE_DOUBLE
from harness.errors import RequestError

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
"""What file systems answer that cannot lock."""


def opened(path: Path) -> h5py.File:
    """Open a file for reading.

    Raises:
        RequestError: it is not there, locked, not readable, truncated, or no HDF5.
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
    """Return what is wrong with a file that cannot be opened; only h5py knows, in long words."""
    said = _one_line(error)
    if isinstance(error, FileNotFoundError):
        return RequestError(f"nyu: {path} is not there")
    if "unable to lock" in said or "already open for write" in said:
        return RequestError(
            f"nyu: {path} is locked: another program has it open for writing, "
            "or did not close it when it had written it"
        )
    if error.errno is not None:
        return RequestError(f"nyu: cannot read {path}: {os.strerror(error.errno)}")
    if _beginning(path) == APPLE_DOUBLE:
        return RequestError(f"nyu: {path} is what macOS keeps beside a file, and no HDF5 file")
    return RequestError(f"nyu: {path} is truncated or no HDF5 file: {said}")


def _beginning(path: Path) -> bytes:
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(len(APPLE_DOUBLE))
    return b""


def dataset(
    file: h5py.File, name: str, dtype: npt.DTypeLike, shape: Sequence[int | None]
) -> h5py.Dataset:
    """Return a data set of a file, of which nothing is read yet.

    Args:
        file: where it is.
        name: its name.
        dtype: what it must hold.
        shape: what it must measure; None for any length.

    Raises:
        RequestError: it is not there, or is another.
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
            f"nyu: {file.filename}: {name!r} has the shape {found_shape} and not ({wanted})"
        )
    if found_dtype != np.dtype(dtype):
        raise RequestError(
            f"nyu: {file.filename}: {name!r} holds {found_dtype} and not {np.dtype(dtype)}"
        )
    return found


def read(data: h5py.Dataset, *numbers: int) -> npt.NDArray[Any]:
    """Return a data set, or the part of it with these first indices.

    Raises:
        RequestError: its bytes are damaged.
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
    """Return depths as `read` does, 0 where they are negative, NaN or infinite: unknown.

    Raises:
        RequestError: as `read`.
    """
    depths: npt.NDArray[np.float32] = read(data, *numbers)
    return np.where(np.isfinite(depths) & (depths > 0), depths, np.float32(0))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
