"""Files that appear whole or not at all, and locks on folders."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from harness.errors import Interrupted, RequestError, RunFailed
from harness.signals import Stop
from harness.storage import files

LONGEST_NAME = 255
"""Bytes that the name of a file or a folder may have."""

_DIGEST_BYTES = 32
UNFINISHED = ".unfinished"
"""Ends the name of a file that is being written."""


class Disk:
    """The operations that change files, so that a test can let one of them fail."""

    def write(self, path: Path, mode: str, content: bytes) -> None:
        """Write a file, or append to it with the mode ``ab``, and wait until it is on the disk."""
        with path.open(mode) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def move(self, source: Path, target: Path) -> None:
        """Move a file to another path, whatever is there."""
        os.replace(source, target)

    def remove(self, path: Path) -> None:
        """Remove a file if it exists."""
        path.unlink(missing_ok=True)


disk = Disk()


def write(path: Path, content: bytes) -> None:
    """Write a file beside its place, then move it there.

    One process at a time may write a path.

    Raises:
        RunFailed: the disk is full, the folder is read-only, and the like.
    """
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        with _told(path):
            disk.write(unfinished, "wb", content)
            disk.move(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            disk.remove(unfinished)
        raise


def append(path: Path, content: bytes) -> None:
    """Add to the end of a file; it is on the disk when this returns.

    Raises:
        RunFailed: the disk is full, the folder is read-only, and the like.
    """
    with _told(path):
        disk.write(path, "ab", content)


def remove(path: Path) -> None:
    """Remove a file that may be there.

    Raises:
        RunFailed: it cannot be removed.
    """
    with _told(path):
        disk.remove(path)


def remove_unfinished(folder: Path) -> None:
    """Remove what a process that was killed left half-written."""
    for file in folder.glob(f"*{UNFINISHED}"):
        remove(file)


def shortened(name: str, most: int) -> str:
    """Return the beginning of a name that takes at most so many bytes on the disk."""
    return os.fsencode(name)[:most].decode(errors="ignore")


def is_there(path: Path) -> bool:
    """Return whether something has this name, be it a broken link or something unreadable."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG
    return True


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Save tensors, numbers, strings and containers of these, with their checksum."""
    import torch

    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getvalue()
    write(path, hashlib.sha256(content).digest() + content)


def load_state(path: Path) -> dict[str, Any] | None:
    """Return what `save_state` saved, on the CPU; None if the file is damaged or missing."""
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
def _told(path: Path) -> Iterator[None]:
    """Say in one line which file the system would not write."""
    try:
        yield
    except OSError as error:
        raise RunFailed(f"cannot write {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def exclusive_lock(folder: Path, report: Callable[[str], None], stop: Stop) -> Iterator[None]:
    """Hold a run's folder; if another process has it, say which and wait for it to end.

    The system frees the lock of a process that was killed.

    Args:
        folder: the run's folder.
        report: takes the line that says who has it.
        stop: ends the waiting.

    Raises:
        RequestError: the folder cannot be written.
        Interrupted: the process was asked to stop while it waited.
    """
    lock, owner = FileLock(folder / "lock"), folder / "owner"
    if not _acquired(lock, seconds=0):
        report(f"{folder.name} is being carried out by {_name(owner)}; waiting for it to end")
        while not _acquired(lock, seconds=0.5):
            if stop.requested:
                raise Interrupted
    try:
        files.write(owner, f"process {os.getpid()}".encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            disk.remove(owner)
        lock.release()


def is_held(folder: Path) -> bool:
    """Return whether another process is carrying out the run of this folder.

    Where this process may not write, it cannot tell, and the answer is no.
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
