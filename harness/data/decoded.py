"""Arrays that are decoded on first use and memory-mapped from then on."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from filelock import FileLock

from harness.data.cache import REMEDY
from harness.errors import RequestError

if TYPE_CHECKING:  # the command line uses this module, and importing numpy takes long
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[Any]
else:
    Array = Any

Item = TypeVar("Item")

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
"""Errors of file systems that cannot lock files."""
_UNFINISHED = ".unfinished"


class Save(Protocol):
    """Writes an array item by item, so that memory holds one item at a time."""

    def __call__(
        self, name: str, read: Callable[[Item], Array | np.generic], items: Sequence[Item]
    ) -> None:
        """Write an array of shape (items, ...).

        Args:
            name: of the array; a slash makes a subfolder.
            read: returns the values of an item, of the same shape and type for all items.
            items: at least one.
        """


def decoded(folder: Path, names: Sequence[str], decode: Callable[[Save], None]) -> dict[str, Array]:
    """Return memory-mapped arrays by name, decoding them if they are missing or damaged.

    The folder appears whole or not at all. Of several processes one decodes while the others wait;
    on a file system without locks each decodes, and the first folder is kept. Pages are read on
    first use. The arrays are writable, as torch requires, but writing does not change the file.

    Args:
        folder: holds the arrays. Its name has to identify the data and the decoding.
        names: of all the arrays.
        decode: writes all arrays with the function that it receives.

    Raises:
        RequestError: the folder cannot be read or written, or the disk is full.
    """
    arrays = _mapped(folder, names)
    if arrays is None:
        with _exclusive_lock(folder) as is_locked:
            # Another process may have decoded them while this one waited.
            arrays = _mapped(folder, names)
            if arrays is None:
                if is_locked:
                    _remove_unfinished(folder)
                _fill(folder, decode)
                arrays = _mapped(folder, names)
    if arrays is None:
        raise RequestError(f"{folder} was damaged while it was written; {REMEDY}")
    return arrays


def _mapped(folder: Path, names: Sequence[str]) -> dict[str, Array] | None:
    """Return the arrays; None if any is missing or damaged, as systems clear caches by file."""
    import numpy as np

    try:
        return {name: np.load(_file(folder, name), mmap_mode="c") for name in names}
    except (FileNotFoundError, NotADirectoryError, ValueError, EOFError):
        return None
    except OSError as error:
        raise RequestError(f"cannot read {folder}: {_reason(error)}; {REMEDY}") from error


@contextlib.contextmanager
def _exclusive_lock(folder: Path) -> Iterator[bool]:
    """Lock a folder; the value is False if its file system has no locks."""
    with _reporting_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        lock.acquire()
    except NotImplementedError:
        pass  # filelock raises this for a file system without locks
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise _cannot_write(folder, error) from error
    try:
        yield lock.is_locked
    finally:
        lock.release()


def _remove_unfinished(folder: Path) -> None:
    """Remove the half-written folders of processes that were killed."""
    for left in folder.parent.glob(f"{glob.escape(folder.name)}{_UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)


def _fill(folder: Path, decode: Callable[[Save], None]) -> None:
    """Decode into a temporary folder, then move it into place."""
    unfinished = _beside(folder)
    with _reporting_errors(folder):
        unfinished.mkdir()

    def save(name: str, read: Callable[[Item], Array | np.generic], items: Sequence[Item]) -> None:
        path = _file(unfinished, name)
        with _reporting_errors(folder):
            path.parent.mkdir(exist_ok=True)
        _write(path, read, items, folder)

    try:
        decode(save)
        _move(unfinished, folder)
    except OSError as error:  # raised by reading; errors of writing are RequestErrors already
        raise RequestError(f"cannot decode into {folder}: {_reason(error)}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _move(unfinished: Path, folder: Path) -> None:
    """Move a finished folder into place, replacing a damaged one."""
    with _reporting_errors(folder):
        if folder.is_dir():
            damaged = _beside(folder)
            folder.replace(damaged)
            shutil.rmtree(damaged, ignore_errors=True)
        try:
            unfinished.replace(folder)
        except OSError as error:
            # Without locks another process may have been faster; its folder is just as good.
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise


def _beside(folder: Path) -> Path:
    """Return a path in the same folder that no other process uses."""
    return folder.with_name(f"{folder.name}{_UNFINISHED}-{uuid.uuid4().hex}")


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"


def _write(
    path: Path,
    read: Callable[[Item], Array | np.generic],
    items: Sequence[Item],
    folder: Path,
) -> None:
    import numpy as np

    # Not np.lib.format.open_memmap: a full disk would end the process by SIGBUS, without a word.
    first = _item(read, items[0])
    header = {
        "descr": np.lib.format.dtype_to_descr(first.dtype),
        "fortran_order": False,
        "shape": (len(items), *first.shape),
    }
    with _reporting_errors(folder), path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(first.tobytes())
        for item in items[1:]:
            file.write(_item(read, item).tobytes())
        file.flush()
        os.fsync(file.fileno())


def _item(read: Callable[[Item], Array | np.generic], item: Item) -> Array | np.generic:
    try:
        return read(item)
    except OSError as error:
        raise RequestError(f"cannot read the data to decode: {_reason(error)}") from error


@contextlib.contextmanager
def _reporting_errors(folder: Path) -> Iterator[None]:
    """Raise a `RequestError` that names the folder and the remedy if it cannot be written."""
    try:
        yield
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _cannot_write(folder: Path, error: OSError) -> RequestError:
    return RequestError(f"cannot write {folder}: {_reason(error)}; {REMEDY}")


def _reason(error: OSError) -> str:
    """Return the system's message in one line, with the file if it names one."""
    what = error.strerror or " ".join(str(error).split())
    return f"{error.filename}: {what}" if error.filename else what
