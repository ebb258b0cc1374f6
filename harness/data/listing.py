"""Files of a data folder, without those that systems leave beside them."""

from __future__ import annotations

from pathlib import Path, PurePath

APPLE_DOUBLE = b"\x00\x05\x16\x07"
"""How the ``._NAME`` begins in which macOS keeps the attributes of NAME on other disks."""


def is_hidden(path: PurePath) -> bool:
    """Tell a name, or a folder on the way to it, that begins with a dot: ``._0001.png``, say."""
    return any(part.startswith(".") for part in path.parts)


def listed(folder: Path, pattern: str) -> list[Path]:
    """Return what matches a pattern in a folder, ordered by path, hidden files left out.

    Args:
        folder: where to look; it need not be there.
        pattern: as `Path.glob` takes it.
    """
    found = folder.glob(pattern)
    return sorted(path for path in found if not is_hidden(path.relative_to(folder)))
