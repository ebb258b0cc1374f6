"""Files that appear whole or not at all, and say when they are damaged."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import RunFailed

_DIGEST_BYTES = 32


def write(path: Path, content: bytes) -> None:
    """Write a file beside its place, then move it there.

    Raises:
        RunFailed: the disk is full, the folder is read-only, and the like.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise RunFailed(f"cannot write {path}: {error.strerror}") from error


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Save tensors, numbers, strings and containers of these, with their checksum."""
    import torch

    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getvalue()
    write(path, hashlib.sha256(content).digest() + content)


def load_state(path: Path) -> dict[str, Any] | None:
    """Return what `save_state` saved, on the CPU; None if the file is damaged."""
    import torch

    content = path.read_bytes()
    digest, content = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state
