"""The processes that worked on a run, one after the other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.durability import files

MACHINE = ("device", "threads", "versions")
"""What two lives must have in common to give the same bits."""


class Lives:
    """When, where and on what each process began to work on a run, kept in a file.

    Args:
        path: the file; if it is damaged, what it said is lost, and nothing else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.entries: list[dict[str, Any]] = _read(path)

    def begin(self, position: int, environment: Mapping[str, Any]) -> None:
        """Begin another life.

        Args:
            position: the step it goes on from.
            environment: what may change the last bits of a result.
        """
        started = datetime.now(UTC).isoformat(timespec="seconds")
        self.entries.append({"started": started, "position": position, **environment})
        files.write(self._path, json.dumps(self.entries, indent=1).encode())

    @property
    def same_machine(self) -> bool:
        """Whether all lives were led on the same kind of machine."""
        first = self.entries[0]
        return all(life[key] == first[key] for life in self.entries for key in MACHINE)


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        entries: list[dict[str, Any]] = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    return entries if isinstance(entries, list) and all(map(_is_life, entries)) else []


def _is_life(entry: object) -> bool:
    if not isinstance(entry, dict) or not all(key in entry for key in MACHINE):
        return False
    numbers = (entry.get("position"), entry.get("runs_on_device"))
    return all(type(each) is int for each in numbers) and isinstance(entry.get("started"), str)
