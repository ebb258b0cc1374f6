"""Whether a large file is the official one, found out once."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from harness.errors import RequestError


def require_official(path: Path, md5: str, hint: str) -> None:
    """Check a file's MD5, unless it is the same file as when it was last checked.

    That is noted in ``NAME.checked`` beside it, with the size and the time of its last change.

    Raises:
        RequestError: it is not there, or not the official file.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise RequestError(f"nyu: cannot read {path}: {error.strerror}; {hint}") from None
    note, line = (
        path.with_name(f"{path.name}.checked"),
        f"{md5} {state.st_size} {state.st_mtime_ns}",
    )
    if note.exists() and note.read_text() == line:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5:
        raise RequestError(
            f"nyu: {path} is truncated or changed: its MD5 is {found} and not {md5}; {hint}"
        )
    with contextlib.suppress(OSError):  # a folder may be read-only; then it is checked again
        note.write_text(line)
