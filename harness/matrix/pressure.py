"""How much memory is left, seen before the kernel ends a process for the lack of it."""

from __future__ import annotations

from pathlib import Path

import psutil

_CONTAINER = Path("/sys/fs/cgroup")
_RESERVED = 0.05
"""Of all memory: what must be left for the machine to work."""


def total() -> int:
    """Return how many bytes of memory there are for this process and its like."""
    limit = _limit()
    physical = int(psutil.virtual_memory().total)
    return physical if limit is None else min(physical, limit)


def available() -> int:
    """Return how many of them are free."""
    free = int(psutil.virtual_memory().available)
    limit = _limit()
    if limit is not None:
        free = min(free, limit - _held())
    return max(0, free - int(_RESERVED * total()))


def in_use(process: int) -> int:
    """Return how many bytes a process and all that it has started hold."""
    held = 0
    try:
        family = [first := psutil.Process(process), *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for member in family:
        try:
            held += int(member.memory_info().rss)
        except psutil.NoSuchProcess:
            continue
    return held


def _held() -> int:
    """Return what the container holds, but for cached files, which the kernel can drop."""
    pairs = map(str.split, (_CONTAINER / "memory.stat").read_text().splitlines())
    cached = {name: int(value) for name, value in pairs}["inactive_file"]
    return int((_CONTAINER / "memory.current").read_text()) - cached


def _limit() -> int | None:
    """Return the limit of the container that this process is in, None if it has none."""
    file = _CONTAINER / "memory.max"
    text = file.read_text().strip() if file.exists() else "max"
    return None if text == "max" else int(text)
