"""Arrays that are decoded once and mapped into memory ever after."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.errors import RequestError

Array = npt.NDArray[Any]
Create = Callable[[str, tuple[int, ...], npt.DTypeLike], Array]
"""Returns a new array of a name, a shape and a type, to be filled."""


def decoded(
    folder: Path, fingerprint: str, decode: Callable[[Create], None]
) -> Mapping[str, Array]:
    """Return the arrays that a decoder fills, by name; they lie in a folder of their own.

    The folder appears whole or not at all. Pages of the arrays are read when they are used, and
    writing to an array does not change its file.

    Args:
        folder: where that folder lies.
        fingerprint: of what is decoded.
        decode: fills arrays, which it creates with the function that it is given.

    Raises:
        RequestError: nothing can be written there, or what is there is damaged.
    """
    place = folder / f"decoded-{fingerprint[:16]}"
    if not place.exists():
        try:
            _fill(place, decode)
        except OSError as error:
            raise RequestError(f"cannot write {place}: {error.strerror}") from error
    try:
        return {file.stem: np.load(file, mmap_mode="c") for file in sorted(place.glob("*.npy"))}
    except (OSError, ValueError):
        raise RequestError(f"{place} is damaged; remove it to have it made again") from None


def _fill(place: Path, decode: Callable[[Create], None]) -> None:
    with tempfile.TemporaryDirectory(
        dir=place.parent, prefix=".decoding-", ignore_cleanup_errors=True
    ) as unfinished:

        def create(name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
            path = Path(unfinished) / f"{name}.npy"
            return np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape)

        decode(create)
        try:
            Path(unfinished).rename(place)
        except OSError:
            if not place.exists():  # another process was faster
                raise
