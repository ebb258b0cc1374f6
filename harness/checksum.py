"""Checksums of files, read once for as long as a file stays as it is."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from pathlib import Path

from harness.errors import RequestError


def require_md5(path: Path, expected: str, task: str, *, note: bool = False) -> None:
    """See to it that a file is the published one, before anything in it is believed.

    Args:
        path: the file.
        expected: its published MD5.
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
        found = md5(path)
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}; {remedy}") from None
    if found != expected:
        raise RequestError(
            f"{path} is truncated or changed: its MD5 is {found} and not {expected}; "
            f"remove it, and {remedy}"
        )
    if note:
        with contextlib.suppress(OSError):  # a folder may be read-only; then it is checked again
            noted.write_text(seen)


def md5(path: Path) -> str:
    """Return the MD5 of a file, by which publishers identify their data.

    Raises:
        OSError: it cannot be read.
    """
    status = path.stat()
    return _md5(path, status.st_size, status.st_mtime_ns)


@functools.cache
def _md5(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
