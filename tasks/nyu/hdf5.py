"""HDF5 files whose faults are said in one line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from harness.errors import RequestError


def opened(path: Path) -> h5py.File:
    """Open a file for reading.

    Raises:
        RequestError: it is not there, truncated, or no HDF5.
    """
    try:
        return h5py.File(path, "r")
    except FileNotFoundError:
        raise RequestError(f"nyu: {path} is not there") from None
    except OSError as error:
        raise RequestError(
            f"nyu: {path} is truncated or no HDF5 file: {_one_line(error)}"
        ) from None


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
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        raise RequestError(f"nyu: {file.filename} has no data set {name!r}")
    fits = len(found.shape) == len(shape) and all(
        wanted in (None, size) for wanted, size in zip(shape, found.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("n" if size is None else str(size) for size in shape)
        raise RequestError(
            f"nyu: {file.filename}: {name!r} has the shape {found.shape} and not ({wanted})"
        )
    if found.dtype != np.dtype(dtype):
        raise RequestError(
            f"nyu: {file.filename}: {name!r} holds {found.dtype} and not {np.dtype(dtype)}"
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


def _one_line(error: OSError) -> str:
    return " ".join(str(error).split())
