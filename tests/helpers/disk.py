"""Disks that fail: full, read-only, or gone because the process was killed while it wrote."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from harness.contracts import Killed
from harness.storage import files
from harness.storage.files import Disk

Operation = Literal["write", "move", "remove"]


def full_disk() -> OSError:
    """Return what the system raises on a disk with no space left."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_only_folder() -> OSError:
    """Return what the system raises in a folder that may not be changed."""
    return PermissionError(errno.EACCES, os.strerror(errno.EACCES))


Fails = Callable[[int, Operation, str], bool]
"""Takes an operation's number, from 1, its kind and its file's name; says whether it fails."""


def never(number: int, operation: Operation, name: str) -> bool:
    """Let no operation fail."""
    return False


def operation_number(failing: int) -> Fails:
    """Let the operation with this number fail."""
    return lambda number, operation, name: number == failing


def when(operation: Operation, *names: str) -> Fails:
    """Let the first operation of this kind fail, or the first on one of these files."""
    return lambda number, kind, name: kind == operation and (not names or name in names)


@dataclass
class FailingDisk(Disk):
    """A disk on which one operation fails, and every one that follows.

    Args:
        fails: says which operation is the first to fail.
        error: makes the error to raise. The file that was being written is left half-written,
            unless the folder is read-only. On a full disk, files can still be removed.
    """

    fails: Fails = never
    error: Callable[[], BaseException] = Killed
    operations: int = 0
    is_broken: bool = False

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Let the harness work on this disk."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "disk", self)
            yield

    def write(self, path: Path, mode: str, content: bytes) -> None:
        """Write a file, or half of it."""
        was_broken = self.is_broken
        if self._fails("write", path):
            if not was_broken and self.error is not read_only_folder:
                super().write(path, mode, content[: len(content) // 2])
            raise self.error()
        super().write(path, mode, content)

    def move(self, source: Path, target: Path) -> None:
        """Move a file, or fail."""
        if self._fails("move", target):
            raise self.error()
        super().move(source, target)

    def remove(self, path: Path) -> None:
        """Remove a file, or fail."""
        if self._fails("remove", path) and self.error is not full_disk:
            raise self.error()
        super().remove(path)

    def _fails(self, operation: Operation, path: Path) -> bool:
        self.operations += 1
        if not self.is_broken:
            self.is_broken = self.fails(self.operations, operation, path.name)
        return self.is_broken
