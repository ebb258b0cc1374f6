"""What a run has done so far: its operations, and the attempts that they took."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from harness.errors import RunFailed
from harness.storage import files


@dataclass(frozen=True)
class Entry:
    """One operation that was performed."""

    verb: str
    arguments: str
    """The call as text; equal calls have equal texts in every process."""
    returned: dict[str, Any]
    event: dict[str, Any]
    """Its entry in the record's ``events``."""


class Journal:
    """The operations of a run in order, in a file with one JSON document per line.

    Each line has a checksum. A damaged or unfinished line is ignored, and so are all lines after
    it.

    Raises:
        RunFailed: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.entries = read_journal(path)
        self.truncate(len(self.entries))

    def append(self, entry: Entry) -> None:
        """Add an entry; `synchronise` waits until it is on the disk."""
        files.append(self._path, _line(len(self.entries), entry))
        self.entries.append(entry)

    def synchronise(self) -> None:
        """Return when all entries are on the disk, as a checkpoint needs that covers them."""
        files.synchronise(self._path)

    def truncate(self, length: int) -> None:
        """Remove all but the first ``length`` entries."""
        del self.entries[length:]
        files.write(self._path, b"".join(map(_line, range(length), self.entries)))


def read_journal(path: Path) -> list[Entry]:
    """Return the entries of a journal to which another process may be adding.

    Raises:
        RunFailed: the file cannot be read.
    """
    return list(_read(path)) if path.exists() else []


def _line(number: int, entry: Entry) -> bytes:
    content = asdict(entry)
    document = {"sha256": _checksum(number, content), "entry": content}
    return (json.dumps(document, allow_nan=False) + "\n").encode()


def _read(path: Path) -> Iterator[Entry]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunFailed(f"cannot read {path}: {error.strerror}") from error
    for number, line in enumerate(content.splitlines(keepends=True)):
        try:
            document = json.loads(line)
            intact = document["sha256"] == _checksum(number, document["entry"])
        except (ValueError, TypeError, KeyError, RecursionError):
            return
        if not (intact and line.endswith(b"\n")):
            return
        yield Entry(**document["entry"])


def _checksum(number: int, content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([number, content]).encode()).hexdigest()[:16]


def plain(value: Any) -> Any:
    """Return nested containers as JSON gives them back; NaN and infinity become None."""
    match value:
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case float() if not math.isfinite(value):
            return None
    return value


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
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        made_with = [field.name for field in dataclasses.fields(value) if field.repr]
        values = {name: getattr(value, name) for name in made_with}
        return f"{type(value).__qualname__}{fingerprint(values)}"
    if isinstance(value, type | Callable) and hasattr(value, "__qualname__"):
        name: str = value.__qualname__
        return name
    raise RunFailed(
        f"an argument of type {type(value).__name__} cannot be recorded; "
        "use numbers, names, functions or dataclasses"
    )


MACHINE = ("device", "threads", "versions")
"""What two attempts must have in common to give the same bits."""


class Attempts:
    """A file of all attempts at a run: when each began, and on which machine.

    Args:
        path: the file; if it is damaged, only its own contents are lost.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.entries: list[dict[str, Any]] = _read_attempts(path)

    def begin(self, position: int, environment: Mapping[str, Any]) -> None:
        """Add an attempt.

        Args:
            position: the step from which it continues.
            environment: everything that may change the last bits of a result.
        """
        started = datetime.now(UTC).isoformat(timespec="seconds")
        self.entries.append({"started": started, "position": position, **environment})
        files.write(self._path, json.dumps(self.entries, indent=1).encode())

    @property
    def same_machine(self) -> bool:
        """Whether all attempts ran on the same kind of machine."""
        first = self.entries[0]
        return all(attempt[key] == first[key] for attempt in self.entries for key in MACHINE)


def _read_attempts(path: Path) -> list[dict[str, Any]]:
    try:
        entries: list[dict[str, Any]] = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    return entries if isinstance(entries, list) and all(map(_is_attempt, entries)) else []


def _is_attempt(entry: object) -> bool:
    if not isinstance(entry, dict) or not all(key in entry for key in MACHINE):
        return False
    numbers = (entry.get("position"), entry.get("runs_on_device"))
    return all(type(each) is int for each in numbers) and isinstance(entry.get("started"), str)
