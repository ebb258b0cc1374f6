"""Atomic writes: a file appears whole or not at all. And locks on folders."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from harness.errors import Interrupted, RequestError, RunFailed
from harness.signals import Stop

LONGEST_NAME = 255
"""Bytes that the name of a file or folder may take."""

UNFINISHED = ".unfinished"
"""Suffix of a file that is being written."""

_DIGEST_BYTES = 32


class Disk:
    """The operations that change files, so that a test can let one of them fail."""

    def write(self, path: Path, mode: str, content: bytes) -> None:
        """Write a file and wait until it is on the disk, or append to it with the mode ``ab``."""
        with path.open(mode) as file:
            file.write(content)
            if mode == "wb":
                file.flush()
                os.fsync(file.fileno())

    def synchronise(self, path: Path) -> None:
        """Wait until a file's content is on the disk."""
        with path.open("rb+") as file:
            os.fsync(file.fileno())

    def move(self, source: Path, target: Path) -> None:
        """Move a file to another path, whatever is there."""
        os.replace(source, target)

    def remove(self, path: Path) -> None:
        """Remove a file if it exists."""
        path.unlink(missing_ok=True)


disk = Disk()


def write(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, then move it into place.

    Only one process at a time may write a path.

    Raises:
        RunFailed: the file cannot be written: the disk is full or the folder is read-only.
    """
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        with _reporting_errors(path):
            disk.write(unfinished, "wb", content)
            disk.move(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            disk.remove(unfinished)
        raise


def write_quickly(path: Path, content: bytes) -> None:
    """Write a file like `write`, but do not wait for the disk: a power cut may damage it.

    Raises:
        OSError: the file cannot be written.
    """
    unfinished = path.with_name(path.name + UNFINISHED)
    unfinished.write_bytes(content)
    os.replace(unfinished, path)


def append(path: Path, content: bytes) -> None:
    """Append to a file; another process sees the content when this returns.

    Raises:
        RunFailed: the file cannot be written: the disk is full or the folder is read-only.
    """
    with _reporting_errors(path):
        disk.write(path, "ab", content)


def synchronise(path: Path) -> None:
    """Wait until a file's content is on the disk.

    Raises:
        RunFailed: it cannot be written there.
    """
    with _reporting_errors(path):
        disk.synchronise(path)


def remove(path: Path) -> None:
    """Remove a file if it exists.

    Raises:
        RunFailed: it cannot be removed.
    """
    with _reporting_errors(path):
        disk.remove(path)


def remove_unfinished(folder: Path) -> None:
    """Remove the half-written files of a process that was killed."""
    for file in folder.glob(f"*{UNFINISHED}"):
        remove(file)


def shortened(name: str, most: int) -> str:
    """Return the longest prefix of a name that takes at most `most` bytes on the disk."""
    return os.fsencode(name)[:most].decode(errors="ignore")


def is_there(path: Path) -> bool:
    """Return whether a path exists, even as a broken link or an unreadable file."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG
    return True


def distinct(paths: Iterable[Path]) -> list[Path]:
    """Return each file once, by its first name, even if links or spellings differ."""
    return list({_identity(path): path for path in reversed(list(paths))}.values())[::-1]


def _identity(path: Path) -> tuple[int, int] | str:
    """Return what all names of a file have in common."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return os.path.realpath(path)
    return found.st_dev, found.st_ino


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Save tensors, numbers, strings and containers of these, with a checksum."""
    import torch

    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getvalue()
    write(path, hashlib.sha256(content).digest() + content)


def load_state(path: Path) -> dict[str, Any] | None:
    """Load what `save_state` saved, on the CPU; None if the file is damaged or missing."""
    import torch

    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, content = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


@contextlib.contextmanager
def _reporting_errors(path: Path) -> Iterator[None]:
    """Raise a `RunFailed` that names the file if it cannot be written."""
    try:
        yield
    except OSError as error:
        raise RunFailed(f"cannot write {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def exclusive_lock(folder: Path, report: Callable[[str], None], stop: Stop) -> Iterator[None]:
    """Lock a run's folder, waiting until any other process has released it.

    The system releases the lock of a process that is killed.

    Args:
        folder: the run's folder.
        report: receives a line that names the process which holds the lock.
        stop: ends the wait.

    Raises:
        RequestError: the folder cannot be written.
        Interrupted: the process was asked to stop while it waited.
    """
    lock, owner = FileLock(folder / "lock"), folder / "owner"
    if not _acquired(lock, seconds=0):
        report(f"{folder.name} is being run by {_name(owner)}; waiting for it to end")
        while not _acquired(lock, seconds=0.5):
            if stop.requested:
                raise Interrupted
    try:
        write(owner, f"process {os.getpid()}".encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            disk.remove(owner)
        lock.release()


def is_held(folder: Path) -> bool:
    """Return whether another process holds the lock of this folder.

    The answer is no if this process may not write there and so cannot try the lock.
    """
    if not os.path.isfile(folder / "lock"):
        return False
    lock = FileLock(folder / "lock")
    try:
        is_free = _acquired(lock, seconds=0)
    except RequestError:
        return False
    lock.release()
    return not is_free


def _acquired(lock: FileLock, seconds: float) -> bool:
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        return False
    except OSError as error:
        folder = Path(lock.lock_file).parent
        raise RequestError(f"results folder {folder.parent}: {error.strerror}") from error
    return True


def _name(owner: Path) -> str:
    try:
        return owner.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return "another process"
