"""Checksums of files, read once for as long as a file stays as it is."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from pathlib import Path

from harness.errors import RequestError

_KINDS = {32: "MD5", 64: "SHA-256"}
"""By the number of digits, in hexadecimal."""


def require_checksum(path: Path, expected: str, task: str, *, note: bool = False) -> None:
    """See to it that a file is the published one, before anything in it is believed.

    Args:
        path: the file.
        expected: its published MD5 or SHA-256, by which of these its publisher identifies it.
        task: whose ``data fetch`` gets it.
        note: write down beside the file, in ``NAME.checked``, that it was right at this size and
            time, and believe that the next time: for gigabytes that can do no harm.

    Raises:
        RequestError: it is missing, truncated or changed.
    """
    remedy = (
        f"put the official {path.name} into {path.parent}, "
        f"or let python -m harness data fetch {task} do it"
    )
    noted = path.with_name(f"{path.name}.checked")
    try:
        status = path.stat()
        seen = f"{expected} {status.st_size} {status.st_mtime_ns}"
        if note and noted.exists() and noted.read_text() == seen:
            return
        found = checksum(path, kind(expected))
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}; {remedy}") from None
    if found != expected:
        raise RequestError(
            f"{path} is truncated or changed: its {kind(expected)} is {found} and not {expected}; "
            f"remove it, and {remedy}"
        )
    if note:
        with contextlib.suppress(OSError):  # a folder may be read-only; then it is checked again
            noted.write_text(seen)


def kind(expected: str) -> str:
    """Return what a published checksum is: ``MD5`` or ``SHA-256``."""
    return _KINDS[len(expected)]


def checksum(path: Path, kind: str) -> str:
    """Return the checksum of a file, in hexadecimal digits.

    Args:
        path: the file.
        kind: ``MD5`` or ``SHA-256``.

    Raises:
        OSError: it cannot be read.
    """
    status = path.stat()
    return _checksum(path, kind, status.st_size, status.st_mtime_ns)


@functools.cache
def _checksum(path: Path, kind: str, size: int, modified: int) -> str:
    algorithm = kind.replace("-", "").lower()
    with path.open("rb") as file:
        return hashlib.file_digest(
            file, lambda: hashlib.new(algorithm, usedforsecurity=False)
        ).hexdigest()
