"""Tasks, pruners and units by name, found without importing them.

A plug-in is a Python file with decorated definitions::

    @pruner("mine", title="My method")
    def mine(run: Run, *, steps: int = 5) -> None: ...

It is found through an entry point (groups ``pruning_benchmark.tasks``, ``.pruners`` and
``.units``; the value names a module or a package, all of whose files are looked through) or
through ``--plugin FILE``. The arguments of the decorators are literals, so that the source is
read and not run: listing costs no import of torch. This project's own methods are found the
same way.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

from harness.errors import RequestError, nearest

Definition = TypeVar("Definition", bound=Callable[..., Any])
Kind = Literal["task", "pruner", "units"]
Group = Literal["dense", "unstructured", "structured", "control"]

ENTRY_POINT_GROUPS: Mapping[Kind, str] = {
    "task": "pruning_benchmark.tasks",
    "pruner": "pruning_benchmark.pruners",
    "units": "pruning_benchmark.units",
}


def task(
    name: str,
    *,
    title: str,
    metric: str,
    goal: Literal["max", "min"],
    data: str,
    settings: Mapping[str, Any],
    profiles: Mapping[str, Mapping[str, Any]],
    choices: Mapping[str, Sequence[str]] | None = None,
    sparsity: float = 0.98,
    version: int = 1,
) -> Callable[[Definition], Definition]:
    """Register a subclass of `harness.task.Task`.

    Args:
        name: what ``--task`` takes.
        title: for tables and figures.
        metric: the key of the main metric in what ``evaluate`` returns.
        goal: whether more or less of the metric is better.
        data: ``module:function`` of a function ``(profile, settings, data_folder)`` that returns
            the `harness.data.DataDescription` without importing torch. ``:function`` means the
            task's own module, which a plug-in of one file has to use.
        settings: every setting with its default; ``--set`` overrides them by name.
        profiles: for each profile that the task has, the settings that differ there.
        choices: the permitted values of settings that are names.
        sparsity: the default of ``--sparsity``.
        version: raised when results are no longer comparable with earlier ones.
    """
    return lambda definition: definition


def pruner(
    name: str,
    *,
    title: str,
    paper: str = "",
    group: Group = "unstructured",
    prunes: bool = True,
    exceeds_budget: bool = False,
    version: int = 1,
) -> Callable[[Definition], Definition]:
    """Register a method: a function of a `harness.run.Run` and, after ``*``, its options.

    Args:
        name: what ``--pruner`` takes.
        title: for tables and figures.
        paper: where the method was published.
        group: which rows of a table it belongs to.
        prunes: False for a method that removes nothing: its sparsity is 0 whatever is asked.
        exceeds_budget: True for a method that by nature trains longer than the others.
        version: raised when results are no longer comparable with earlier ones.
    """
    return lambda definition: definition


def units(name: str) -> Callable[[Definition], Definition]:
    """Register an implementation of `harness.units.Units`, which says what can be pruned."""
    return lambda definition: definition


DECORATORS: Mapping[str, Kind] = {"task": "task", "pruner": "pruner", "units": "units"}
_DECORATED = re.compile(r"^@\s*(task|pruner|units)\(", re.MULTILINE)


@dataclass(frozen=True)
class Entry:
    """One registered definition, read from its source."""

    kind: Kind
    name: str
    attribute: str
    source: Path
    module: str | None
    """The module's importable name; None for a file given by ``--plugin``."""
    arguments: Mapping[str, Any]
    options: Mapping[str, Any]
    """A pruner's keyword-only parameters with their defaults."""
    summary: str
    """The first line of the docstring."""

    @property
    def title(self) -> str:
        """The name for tables and figures."""
        return str(self.arguments.get("title", self.name))

    @property
    def version(self) -> int | str:
        """What decides whether two results are comparable: of a plug-in, its file's hash."""
        if self.module is None:
            return hashlib.sha256(self.source.read_bytes()).hexdigest()[:16]
        return int(self.arguments.get("version", 1))

    def load(self) -> Any:
        """Import the definition.

        Raises:
            RequestError: the module cannot be imported.
        """
        return self.beside(self.attribute)

    def beside(self, attribute: str) -> Any:
        """Import another attribute of the definition's own module.

        Raises:
            RequestError: the module cannot be imported, or has no such attribute.
        """
        if self.module is None:
            module = _import_file(self.source)
        else:
            module = importlib.import_module(self.module)
        if not hasattr(module, attribute):
            raise RequestError(
                f"{self.kind} {self.name!r}: {self.source.name} has no {attribute!r}"
            )
        return getattr(module, attribute)


class Registry:
    """All that is installed, and what the plug-in files add.

    Args:
        plugins: Python files given by ``--plugin``.

    Raises:
        RequestError: a file cannot be read, or registers a name that is taken.
    """

    def __init__(self, plugins: Sequence[Path] = ()) -> None:
        self.plugins = tuple(plugins)
        self._plugin_entries: list[Entry] = []
        for plugin in plugins:
            found = list(_read_plugin(plugin))
            if not found:
                raise RequestError(f"plug-in {plugin}: registers no task, pruner or units")
            for entry in found:
                taken = self.of_kind(entry.kind).get(entry.name)
                if taken is not None:
                    raise RequestError(
                        f"plug-in {plugin}: the {entry.kind} name {entry.name!r} is taken "
                        f"by {taken.module or taken.source}"
                    )
                self._plugin_entries.append(entry)
                self.of_kind.cache_clear()

    @functools.cache  # noqa: B019 - a registry lives as long as its process
    def of_kind(self, kind: Kind) -> dict[str, Entry]:
        """Return the entries of one kind by name, in alphabetical order."""
        entries: dict[str, Entry] = {}
        for entry in (*_installed(kind), *self._plugin_entries):
            if entry.kind != kind:
                continue
            if entry.name in entries:
                raise RequestError(
                    f"the {kind} name {entry.name!r} is registered twice: "
                    f"in {entries[entry.name].source.name} and in {entry.source.name}"
                )
            entries[entry.name] = entry
        return dict(sorted(entries.items()))

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
            RequestError: it is not.
        """
        for name, entry in self.of_kind(kind).items():
            if entry.attribute == definition.__name__ and entry.load() is definition:
                return name
        raise RequestError(f"the class {definition.__name__} is not registered as {kind}")


def _installed(kind: Kind) -> Iterator[Entry]:
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUPS[kind]):
        specification = importlib.util.find_spec(point.value)
        if specification is None or specification.origin is None:
            raise RequestError(f"entry point {point.name!r}: there is no module {point.value!r}")
        origin = Path(specification.origin)
        if specification.submodule_search_locations is None:
            yield from _read(origin, point.value)
            continue
        for file in sorted(origin.parent.rglob("*.py")):
            parts = file.relative_to(origin.parent).with_suffix("").parts
            module = ".".join((point.value, *(part for part in parts if part != "__init__")))
            yield from _read(file, module)


def _read_plugin(path: Path) -> Iterator[Entry]:
    if not path.is_file():
        raise RequestError(f"plug-in {path}: there is no such file")
    try:
        yield from _read(path.resolve(), None)
    except (SyntaxError, UnicodeDecodeError) as error:
        raise RequestError(f"plug-in {path}: is not Python: {error}") from None


def _read(source: Path, module: str | None) -> Iterator[Entry]:
    text = source.read_text(encoding="utf-8")
    if not _DECORATED.search(text):
        return
    for node in ast.parse(text).body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        for decorator in node.decorator_list:
            call = decorator if isinstance(decorator, ast.Call) else None
            if call and isinstance(call.func, ast.Name) and call.func.id in DECORATORS:
                yield _entry(node, call, DECORATORS[call.func.id], source, module)


def _entry(
    node: ast.FunctionDef | ast.ClassDef,
    call: ast.Call,
    kind: Kind,
    source: Path,
    module: str | None,
) -> Entry:
    try:
        (name,) = (ast.literal_eval(argument) for argument in call.args)
        arguments = {word.arg or "**": ast.literal_eval(word.value) for word in call.keywords}
        options = _keyword_only(node) if isinstance(node, ast.FunctionDef) else {}
    except ValueError:
        raise RequestError(
            f"{source.name}:{call.lineno}: @{kind} takes one name and literal arguments only, "
            "and the options of a pruner have literal defaults"
        ) from None
    summary = (ast.get_docstring(node) or "").partition("\n")[0]
    return Entry(kind, name, node.name, source, module, arguments, options, summary)


def _keyword_only(function: ast.FunctionDef) -> dict[str, Any]:
    """Return the parameters after ``*`` with their defaults."""
    pairs = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    return {
        parameter.arg: ast.literal_eval(default)
        for parameter, default in pairs
        if default is not None
    }


def _import_file(source: Path) -> ModuleType:
    name = f"plugin_{hashlib.sha256(str(source).encode()).hexdigest()[:8]}_{source.stem}"
    if name in sys.modules:
        return sys.modules[name]
    specification = importlib.util.spec_from_file_location(name, source)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise RequestError(
            f"plug-in {source.name}: does not import: {type(error).__name__}: {error}"
        ) from error
    return module
