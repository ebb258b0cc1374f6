"""Arrays that are decoded once and mapped into memory ever after."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from harness.errors import RequestError

Item = TypeVar("Item")
Array = npt.NDArray[Any]


class Save(Protocol):
    """Writes one array, of what is read item after item: memory holds one at a time."""

    def __call__(
        self, name: str, read: Callable[[Item], Array | np.generic], items: Sequence[Item]
    ) -> None:
        """Write an array (items, ...).

        Args:
            name: of the array; a slash makes a folder.
            read: returns what an item gives, of one shape and type for all of them.
            items: at least one.
        """


def decoded(folder: Path, names: Sequence[str], decode: Callable[[Save], None]) -> dict[str, Array]:
    """Return arrays by their names, which are decoded if their folder is not there.

    The folder appears whole or not at all; of several processes one decodes, and the others wait
    for it. Pages of the arrays are read when they are used, and writing to an array does not
    change its file, since torch wants arrays that could be written.

    Args:
        folder: where the arrays lie. What is decoded, and how, has to be in its name.
        names: of all the arrays.
        decode: saves them with the function that it is given.

    Raises:
        RequestError: nothing can be written there, or what is there is damaged.
    """
    if not folder.exists():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_name(f"{folder.name}.lock")):
                if not folder.exists():
                    _fill(folder, decode)
        except OSError as error:
            raise RequestError(f"cannot write {folder}: {error.strerror or error}") from error
    try:
        return {name: np.load(_file(folder, name), mmap_mode="c") for name in names}
    except (OSError, ValueError, EOFError):
        raise RequestError(f"{folder} is damaged; remove it to have it made again") from None


def _fill(folder: Path, decode: Callable[[Save], None]) -> None:
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
    unfinished.mkdir()

    def save(name: str, read: Callable[[Item], Array | np.generic], items: Sequence[Item]) -> None:
        path = _file(unfinished, name)
        path.parent.mkdir(exist_ok=True)
        _write(path, read, items)

    try:
        decode(save)
        unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"


def _write(path: Path, read: Callable[[Item], Array | np.generic], items: Sequence[Item]) -> None:
    first = read(items[0])
    header = {
        "descr": np.lib.format.dtype_to_descr(first.dtype),
        "fortran_order": False,
        "shape": (len(items), *first.shape),
    }
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(first.tobytes())
        for item in items[1:]:
            file.write(read(item).tobytes())
        file.flush()
        os.fsync(file.fileno())
