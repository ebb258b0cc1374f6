"""Tasks, pruners and units by name, found without importing them.

A plug-in is a Python file with decorated definitions::

    @pruner("mine", title="My method")
    def mine(run: Run, *, steps: int = 5) -> None: ...

It is found through an entry point (groups ``pruning_benchmark.tasks``, ``.pruners`` and
``.units``; the value names a module, or a package, whose files are all read) or through
``--plugin FILE``. This project's own definitions are found the same way.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness.declarations import Goal, Group, pruner, read_source, task, units
from harness.entry import Entry, Kind
from harness.errors import RequestError, nearest

__all__ = ["Entry", "Goal", "Group", "Kind", "Registry", "pruner", "task", "units"]

PROJECT = "pruning-benchmark"
"""This project's name as a distribution."""

ENTRY_POINT_GROUPS: Mapping[Kind, str] = {
    "task": "pruning_benchmark.tasks",
    "pruner": "pruning_benchmark.pruners",
    "units": "pruning_benchmark.units",
}


_CALLS_TASK_FROM = re.compile(r"\btask_from\(")


class Registry:
    """All installed definitions, and those of the plug-in files.

    Args:
        plugins: Python files given by ``--plugin``.

    Raises:
        RequestError: a file cannot be read, or registers a name that is taken.
    """

    def __init__(self, plugins: Sequence[Path] = ()) -> None:
        self.plugins = tuple(plugins)
        self._entries: dict[Kind, dict[str, Entry]] = {}
        for plugin in plugins:
            for entry in _read_plugin(plugin):
                try:
                    self._entries[entry.kind] = _with(self.of_kind(entry.kind), entry)
                except RequestError as error:
                    raise RequestError(f"plug-in {plugin}: {error}") from None

    def of_kind(self, kind: Kind) -> Mapping[str, Entry]:
        """Return the entries of one kind by name, in alphabetical order."""
        if kind not in self._entries:
            self._entries[kind] = _installed(kind)
        return self._entries[kind]

    def find(self, kind: Kind, name: str) -> Entry:
        """Return the entry of that name.

        Raises:
            RequestError: there is none.
        """
        entries = self.of_kind(kind)
        if name not in entries:
            raise RequestError(f"unknown {kind} {name!r}{nearest(name, entries)}")
        return entries[name]

    def name_of(self, kind: Kind, definition: type) -> str:
        """Return the name under which a class is registered.

        Raises:
            RequestError: it is not registered.
        """
        for name, entry in self.of_kind(kind).items():
            if entry.attribute == definition.__name__ and entry.load() is definition:
                return name
        raise RequestError(f"the class {definition.__name__} is not registered as {kind}")


def _with(entries: Mapping[str, Entry], entry: Entry) -> dict[str, Entry]:
    """Return the entries and another one, in alphabetical order."""
    if entry.name in entries:
        taken = entries[entry.name]
        raise RequestError(
            f"the {entry.kind} name {entry.name!r} is taken by {taken.module or taken.source}"
        )
    return dict(sorted({**entries, entry.name: entry}.items()))


def _installed(kind: Kind) -> dict[str, Entry]:
    """Return what the entry points register; print a warning for a broken one."""
    entries: dict[str, Entry] = {}
    for point in _entry_points(kind):
        try:
            extended = entries
            for entry in _read_entry_point(point.value):
                if entry.kind == kind:
                    extended = _with(extended, entry)
            entries = extended
        except (Exception, SystemExit) as error:  # importing a package runs any code
            why = f"{type(error).__name__}: {error}"
            if isinstance(error, RequestError):
                why = str(error)
            distribution = point.dist.name if point.dist else "unknown"
            print(f"warning: entry point {point.name!r} of {distribution}: {why}", file=sys.stderr)
    return entries


def _entry_points(kind: Kind) -> list[importlib.metadata.EntryPoint]:
    """Return this project's own entry points first, so that no other can take its names."""

    def order(point: importlib.metadata.EntryPoint) -> tuple[bool, str]:
        return point.dist is None or point.dist.name != PROJECT, point.value

    return sorted(importlib.metadata.entry_points(group=ENTRY_POINT_GROUPS[kind]), key=order)


def _read_entry_point(package: str) -> Iterator[Entry]:
    """Read a module, or all the modules of a package; only their parents are imported."""
    specification = importlib.util.find_spec(package)
    if specification is None or specification.origin is None:
        raise RequestError(f"there is no module {package!r}")
    origin = Path(specification.origin)
    if specification.submodule_search_locations is None:
        yield from read_source(origin, package)
        return
    for file in sorted(origin.parent.rglob("*.py")):
        parts = file.relative_to(origin.parent).with_suffix("").parts
        module = ".".join((package, *(part for part in parts if part != "__init__")))
        yield from read_source(file, module)


def _read_plugin(path: Path) -> list[Entry]:
    try:
        found = list(read_source(path.resolve(), None))
    except OSError as error:
        raise RequestError(f"plug-in {path} cannot be read: {error.strerror}") from None
    except SyntaxError as error:
        raise RequestError(
            f"plug-in {path} is not Python: {error.msg}, line {error.lineno}"
        ) from None
    except ValueError:
        raise RequestError(f"plug-in {path} is not Python: it is not a text in UTF-8") from None
    if _CALLS_TASK_FROM.search(path.read_text(encoding="utf-8")):
        from harness.own_task import own_entries

        try:
            found += own_entries(path.resolve())
        except RequestError as error:
            raise RequestError(f"plug-in {path}: {error}") from error
    if not found:
        raise RequestError(
            f"plug-in {path}: registers nothing: no function or class in it has the decorator "
            "@task(...), @pruner(...) or @units(...) of harness.registry, and it makes no task "
            "with harness.task_from(...)"
        )
    if path.suffix != ".py":
        raise RequestError(f"plug-in {path}: the name of a Python file ends in .py")
    return found
