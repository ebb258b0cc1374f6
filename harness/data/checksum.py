"""Checksums of files, read once for as long as a file stays as it is."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from pathlib import Path

from harness.data.cache import cache_folder
from harness.errors import RequestError

_KINDS = {32: "MD5", 64: "SHA-256"}
"""By the number of digits, in hexadecimal."""


def require_checksum(path: Path, expected: str, task: str, *, note: bool = False) -> None:
    """See to it that a file is the published one, before anything in it is believed.

    Args:
        path: the file.
        expected: its published MD5 or SHA-256, by which of these its publisher identifies it.
        task: whose ``data fetch`` gets it.
        note: write down in the user's cache folder that it was right at this size and time, and
            believe that the next time: for gigabytes that can do no harm.

    Raises:
        RequestError: it is missing, truncated or changed.
    """
    remedy = (
        f"put the official {path.name} into {path.parent}, "
        f"or let python -m harness data fetch {task} do it"
    )
    noted = _note_of(path) if note else None
    try:
        status = path.stat()
        seen = f"{expected} {status.st_size} {status.st_mtime_ns}".encode()
        if noted is not None and _content(noted) == seen:
            return
        found = checksum(path, kind(expected))
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}; {remedy}") from None
    if found != expected:
        raise RequestError(
            f"{path} is truncated or changed: its {kind(expected)} is {found} and not {expected}; "
            f"remove it, and {remedy}"
        )
    if noted is not None:
        with contextlib.suppress(OSError):  # without the note it is checked again
            noted.parent.mkdir(parents=True, exist_ok=True)
            noted.write_bytes(seen)


def _note_of(path: Path) -> Path | None:
    """Return where a note on a file lies; None if there is no place for it."""
    place = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
    with contextlib.suppress(RequestError):
        return cache_folder() / "checked" / f"{path.name}-{place}"
    return None


def _content(path: Path) -> bytes | None:
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return None


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
