"""Arrays that are decoded once and mapped into memory ever after."""

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

import platformdirs
from filelock import FileLock

from harness.errors import RequestError

if TYPE_CHECKING:  # the command line uses this module, and importing numpy takes long
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[Any]
else:
    Array = Any

Item = TypeVar("Item")

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
"""What file systems answer that cannot lock."""
_UNFINISHED = ".unfinished"


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
    """Return arrays by their names, decoding them if they are missing or damaged.

    The folder appears whole or not at all; of several processes one decodes, and the others wait
    for it. Where the file system cannot lock, each decodes, and the first one's folder stays.
    Pages of the arrays are read when they are used, and writing to an array does not change its
    file, since torch wants arrays that could be written.

    Args:
        folder: where the arrays lie. What is decoded, and how, has to be in its name.
        names: of all the arrays.
        decode: saves them with the function that it is given.

    Raises:
        RequestError: the folder cannot be read or written, or the disk is full.
    """
    arrays = _mapped(folder, names)
    if arrays is None:
        with _exclusive_lock(folder) as is_locked:
            # Another process may have decoded them meanwhile.
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
    """Return the arrays, None if any is missing or damaged: systems clear caches file by file."""
    import numpy as np

    try:
        return {name: np.load(_file(folder, name), mmap_mode="c") for name in names}
    except (FileNotFoundError, NotADirectoryError, ValueError, EOFError):
        return None
    except OSError as error:
        raise RequestError(f"cannot read {folder}: {_reason(error)}; {REMEDY}") from error


@contextlib.contextmanager
def _exclusive_lock(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder; False if its file system has no locks."""
    with _told(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        lock.acquire()
    except NotImplementedError:
        pass  # filelock's word for a file system without locks
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise _cannot_write(folder, error) from error
    try:
        yield lock.is_locked
    finally:
        lock.release()


def _remove_unfinished(folder: Path) -> None:
    """Remove what a process that was killed left half-written."""
    for left in folder.parent.glob(f"{glob.escape(folder.name)}{_UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)


def _fill(folder: Path, decode: Callable[[Save], None]) -> None:
    """Decode into a folder beside the place, and move it there."""
    unfinished = _beside(folder)
    with _told(folder):
        unfinished.mkdir()

    def save(name: str, read: Callable[[Item], Array | np.generic], items: Sequence[Item]) -> None:
        path = _file(unfinished, name)
        with _told(folder):
            path.parent.mkdir(exist_ok=True)
        _write(path, read, items, folder)

    try:
        decode(save)
        _move(unfinished, folder)
    except OSError as error:  # of what is read; what is written tells by itself
        raise RequestError(f"cannot decode into {folder}: {_reason(error)}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _move(unfinished: Path, folder: Path) -> None:
    """Put a finished folder into its place, where a damaged one may be."""
    with _told(folder):
        if folder.is_dir():
            damaged = _beside(folder)
            folder.replace(damaged)
            shutil.rmtree(damaged, ignore_errors=True)
        try:
            unfinished.replace(folder)
        except OSError as error:
            # Without locks another process may have been faster; its folder is as good.
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise


def _beside(folder: Path) -> Path:
    """Return a name that no other process uses."""
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

    first = _item(read, items[0])
    header = {
        "descr": np.lib.format.dtype_to_descr(first.dtype),
        "fortran_order": False,
        "shape": (len(items), *first.shape),
    }
    with _told(folder), path.open("wb") as file:
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
        raise RequestError(f"cannot read what is decoded: {_reason(error)}") from error


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Say in one line which folder the system would not write, and what to do."""
    try:
        yield
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _cannot_write(folder: Path, error: OSError) -> RequestError:
    return RequestError(f"cannot write {folder}: {_reason(error)}; {REMEDY}")


def _reason(error: OSError) -> str:
    """Return a line: what the system says, and of which file if it says so."""
    what = error.strerror or " ".join(str(error).split())
    return f"{error.filename}: {what}" if error.filename else what


VARIABLE = "PRUNING_BENCHMARK_CACHE"
"""The environment variable that names the folder; processes that a run starts inherit it."""

REMEDY = f"--cache DIR, or the environment variable {VARIABLE}, names another folder"


def use_cache(folder: Path) -> None:
    """Let this process, and those that it starts, keep decoded copies in a folder.

    Raises:
        RequestError: there is something there that is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise RequestError(f"--cache {folder}: is not a folder")
    os.environ[VARIABLE] = str(folder.resolve())


def cache_folder() -> Path:
    """Return the folder for decoded copies, which need not be there.

    It is what `use_cache` or the environment variable names, or else this project's part of the
    cache folder that the system gives each user.

    Raises:
        RequestError: the user has no home folder, and no folder is named.
    """
    named = os.environ.get(VARIABLE)
    folder = Path(named) if named else platformdirs.user_cache_path("pruning-benchmark")
    if not folder.is_absolute():
        if not named:
            raise RequestError(f"there is no home folder for decoded copies of data: {REMEDY}")
        folder = folder.absolute()
    return folder
