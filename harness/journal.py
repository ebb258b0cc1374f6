"""What a run's program has done so far, verb by verb."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.errors import RunFailed


@dataclass(frozen=True)
class Entry:
    """One verb that was carried out."""

    verb: str
    arguments: str
    """A fingerprint: the same arguments have the same, in every process."""
    returned: dict[str, Any]
    event: dict[str, Any]
    """What the record says of it."""


class Journal:
    """The verbs of a run in their order, kept in a file with one JSON document a line.

    A line that a kill left unfinished is as if never written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.entries: list[Entry] = []
        if path.exists():
            self.entries = list(_read(path))
            self.truncate(len(self.entries))

    def append(self, entry: Entry) -> None:
        """Add an entry; it is on the disk when this returns."""
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(entry)) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunFailed(f"cannot write {self._path}: {error.strerror}") from error
        self.entries.append(entry)

    def truncate(self, length: int) -> None:
        """Forget all but the first entries."""
        lines = self._path.read_bytes().splitlines(keepends=True) if self._path.exists() else []
        with self._path.open("r+b" if lines else "ab") as file:
            file.truncate(sum(len(line) for line in lines[:length]))
        del self.entries[length:]


def _read(path: Path) -> Iterator[Entry]:
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            if not line.endswith(b"\n"):
                return
            yield Entry(**json.loads(line))
        except (ValueError, TypeError):
            return


def fingerprint(value: object) -> str:
    """Return a text that is the same for the same value in every process.

    Raises:
        RunFailed: a value of this type has no such text.
    """
    match value:
        case None | bool() | int() | float() | str():
            return repr(value)
        case list() | tuple():
            return f"[{', '.join(fingerprint(item) for item in value)}]"
        case Mapping():
            return f"{{{', '.join(f'{key}: {fingerprint(item)}' for key, item in value.items())}}}"
        case partial():
            arguments = [*value.args, dict(sorted(value.keywords.items()))]
            return f"{fingerprint(value.func)}{fingerprint(arguments)}"
    if is_dataclass(value) and not isinstance(value, type):
        return repr(value)
    if isinstance(value, type | Callable) and hasattr(value, "__qualname__"):
        name: str = value.__qualname__
        return name
    raise RunFailed(
        f"an argument of type {type(value).__name__} cannot be recorded; "
        "use numbers, names, functions or dataclasses"
    )
