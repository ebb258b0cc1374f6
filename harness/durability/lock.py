"""One process at a time carries out a run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from harness.durability import files
from harness.durability.stop import Stop
from harness.errors import Interrupted, RequestError


@contextlib.contextmanager
def alone(folder: Path, report: Callable[[str], None], stop: Stop) -> Iterator[None]:
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
            owner.unlink(missing_ok=True)
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
