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
import importlib
import importlib.metadata
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar, get_args

from harness import conditions
from harness.errors import ImportFailed, RequestError, nearest
from harness.plugin_code import PluginCode, without_prefix
from harness.signals import raised_by_code

Definition = TypeVar("Definition", bound=Callable[..., Any])
Module = TypeVar("Module", bound=ModuleType | None)
Kind = Literal["task", "pruner", "units"]
Group = Literal["dense", "unstructured", "structured", "control"]
Goal = Literal["max", "min"]

RECIPE: Mapping[str, tuple[type, str]] = {
    "epochs": (int, "the budget, a whole number from 1 on"),
    "batch_size": (int, "samples in a training batch, a whole number from 1 on"),
    "optimiser": (str, f"one of {', '.join(conditions.CHOICES['optimiser'])}"),
    "learning_rate": (float, "a number"),
    "weight_decay": (float, "a number, 0 for none"),
    "clip": (float, "the largest norm of a gradient, 0 for any"),
}
"""The settings that every task has, for they are how the engine trains; all others are its own."""

PROJECT = "pruning-benchmark"
"""This project's name as a distribution."""

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
    goal: Goal,
    data: str,
    settings: Mapping[str, Any],
    profiles: Mapping[str, Mapping[str, Any]],
    choices: Mapping[str, Sequence[str]] | None = None,
    limits: Mapping[str, str] | None = None,
    downloads: Mapping[str, Sequence[str]] | None = None,
    by_hand: Sequence[str] = (),
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
            the `harness.data.description.DataDescription` without importing torch.
            ``:function`` means the task's own module, which a plug-in of one file has to use.
        settings: every setting with its default; ``--set`` overrides them by name. Those of
            `RECIPE` are compulsory: epochs, batch_size, optimiser, learning_rate, weight_decay
            and clip.
        profiles: for each profile that the task has, the settings that differ there.
        choices: the permitted values of settings that are names.
        limits: the permitted values of settings that are numbers, as intervals: ``"(0, 1]"`` is
            more than 0 and at most 1.
        downloads: for each official file its address and its MD5 or SHA-256, and ``unpack`` for an
            archive that is to be unpacked; ``data fetch`` puts them into the folder of the task's
            name in the data folder.
        by_hand: lines on files that cannot be downloaded for the user, because of a licence page
            or a registration: where in that folder they belong, and where to get them.
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
    obeys_budgets: bool = False,
    exceeds_budget: bool = False,
    limits: Mapping[str, str] | None = None,
    version: int = 1,
) -> Callable[[Definition], Definition]:
    """Register a method: a function of a `harness.run.Run` and, after ``*``, its options.

    Args:
        name: what ``--pruner`` takes.
        title: for tables and figures.
        paper: where the method was published.
        group: which rows of a table it belongs to.
        prunes: False for a method that removes nothing: its sparsity is 0 whatever is asked.
        obeys_budgets: True for a method that has no sparsity, but keeps a budget (``--budget``).
            A method that prunes does both.
        exceeds_budget: True for a method that by nature trains longer than the others.
        limits: the permitted values of options that are numbers, as of `task`.
        version: raised when results are no longer comparable with earlier ones.
    """
    return lambda definition: definition


def units(name: str) -> Callable[[Definition], Definition]:
    """Register an implementation of `harness.units.Units`, which says what can be pruned."""
    return lambda definition: definition


_DECORATORS: Mapping[Kind, Callable[..., Any]] = {"task": task, "pruner": pruner, "units": units}
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

    @cached_property
    def version(self) -> int | str:
        """What decides whether two results are comparable: of a plug-in, the hash of its code.

        Raises:
            RequestError: the code of a plug-in cannot be read.
        """
        if self.code is None:
            return int(self.arguments.get("version", 1))
        return self._fingerprint()

    @property
    def code(self) -> PluginCode | None:
        """The code of a plug-in; None for what is installed."""
        if self.module is not None:
            return None
        data = str(self.arguments.get("data", "")).partition(":")[0]
        return PluginCode(self.source, (data,) if data else ())

    def _fingerprint(self) -> str:
        assert self.code is not None
        try:
            return self.code.fingerprint()
        except SyntaxError as error:
            file = Path(error.filename or self.source).name
            raise RequestError(
                f"{self.kind} {self.name!r}: {file} is not Python: {error.msg}, line {error.lineno}"
            ) from None
        except (OSError, ValueError) as error:
            raise RequestError(f"{self.kind} {self.name!r}: cannot be read: {error}") from None

    @property
    def has_changed(self) -> bool:
        """Whether the code of a plug-in is no longer what its version says."""
        return self.code is not None and self._fingerprint() != self.version

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
        module = self._import(self._own_module)
        if not hasattr(module, attribute):
            raise ImportFailed(
                f"{self.kind} {self.name!r}: {self.source.name} has no {attribute!r}"
            )
        return getattr(module, attribute)

    def describe(self) -> Callable[..., Any]:
        """Import the function that describes a task's data.

        Raises:
            RequestError: it is not there.
        """
        name, _, function = str(self.arguments["data"]).partition(":")
        if not name:
            found = self.beside(function)
        else:
            beside = None if self.code is None else self._import(lambda: self._beside(name))
            try:
                found = getattr(beside or importlib.import_module(name), function)
            except (ImportError, AttributeError) as error:
                raise RequestError(
                    f"task {self.name!r}: what describes its data: {without_prefix(str(error))}"
                ) from None
        if not callable(found):
            raise RequestError(f"task {self.name!r}: {function!r}, for its data, is no function")
        describe: Callable[..., Any] = found
        return describe

    def _own_module(self) -> ModuleType:
        if self.module is not None:
            return importlib.import_module(self.module)
        assert self.code is not None
        if not self.code.is_imported and self.has_changed:
            raise RequestError(
                f"{self.kind} {self.name!r}: the code of {self.source.name} has changed since it "
                "was read; ask again"
            )
        return self.code.load(str(self.version))

    def _beside(self, name: str) -> ModuleType | None:
        assert self.code is not None
        return self.code.load_beside(name)

    def _import(self, load: Callable[[], Module]) -> Module:
        """Import something, and tell in one line why that cannot be done."""
        try:
            return load()
        except RequestError:
            raise
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            if isinstance(error, KeyboardInterrupt) and not raised_by_code(error):
                raise
            own = {str(self.source)}
            if self.code is not None:
                own |= {str(file) for file in self.code.files().values()}
            frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in own]
            place = f"{self.source.name}"
            if frames:
                place = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}"
            raise ImportFailed(
                f"{self.kind} {self.name!r}: {place}: does not import: "
                f"{without_prefix(_described(error))}"
            ) from error


class Registry:
    """All that is installed, and what the plug-in files add.

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
            RequestError: it is not.
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
    """Return what the entry points register; a broken one costs the others only a warning."""
    entries: dict[str, Entry] = {}
    for point in _entry_points(kind):
        try:
            extended = entries
            for entry in _read_entry_point(point.value):
                if entry.kind == kind:
                    extended = _with(extended, entry)
            entries = extended
        except (Exception, SystemExit) as error:  # importing a package runs whatever is in it
            why = str(error) if isinstance(error, RequestError) else _described(error)
            distribution = point.dist.name if point.dist else "unknown"
            print(f"warning: entry point {point.name!r} of {distribution}: {why}", file=sys.stderr)
    return entries


def _entry_points(kind: Kind) -> list[importlib.metadata.EntryPoint]:
    """Return this project's own entry points first, so that nobody else can take its names."""

    def order(point: importlib.metadata.EntryPoint) -> tuple[bool, str]:
        return point.dist is None or point.dist.name != PROJECT, point.value

    return sorted(importlib.metadata.entry_points(group=ENTRY_POINT_GROUPS[kind]), key=order)


def _read_entry_point(package: str) -> Iterator[Entry]:
    """Read a module, or all the modules of a package, of which only parents are imported."""
    specification = importlib.util.find_spec(package)
    if specification is None or specification.origin is None:
        raise RequestError(f"there is no module {package!r}")
    origin = Path(specification.origin)
    if specification.submodule_search_locations is None:
        yield from _read(origin, package)
        return
    for file in sorted(origin.parent.rglob("*.py")):
        parts = file.relative_to(origin.parent).with_suffix("").parts
        module = ".".join((package, *(part for part in parts if part != "__init__")))
        yield from _read(file, module)


def _read_plugin(path: Path) -> list[Entry]:
    try:
        found = list(_read(path.resolve(), None))
    except OSError as error:
        raise RequestError(f"plug-in {path}: cannot be read: {error.strerror}") from None
    except SyntaxError as error:
        raise RequestError(
            f"plug-in {path}: is not Python: {error.msg}, line {error.lineno}"
        ) from None
    except ValueError:
        raise RequestError(f"plug-in {path}: is not Python: it is not a text in UTF-8") from None
    if not found:
        raise RequestError(
            f"plug-in {path}: registers nothing: no function or class in it has the decorator "
            "@task(...), @pruner(...) or @units(...) of harness.registry"
        )
    if path.suffix != ".py":
        raise RequestError(f"plug-in {path}: the name of a Python file ends in .py")
    return found


def _read(source: Path, module: str | None) -> Iterator[Entry]:
    text = source.read_text(encoding="utf-8")
    # Parsing takes long, so what is installed is only parsed where there is something to find.
    if module is not None and not _DECORATED.search(text):
        return
    for node in ast.parse(text).body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        for decorator in node.decorator_list:
            match decorator:
                case ast.Call(func=ast.Name(id="task" | "pruner" | "units" as kind)):
                    yield _entry(node, decorator, kind, source, module)


def _entry(
    node: ast.FunctionDef | ast.ClassDef,
    call: ast.Call,
    kind: Kind,
    source: Path,
    module: str | None,
) -> Entry:
    place = f"{source.name}, line {call.lineno}"
    try:
        names = [ast.literal_eval(argument) for argument in call.args]
        arguments = {word.arg or "**": ast.literal_eval(word.value) for word in call.keywords}
    except ValueError:
        raise RequestError(
            f"{place}: the arguments of @{kind} are read without running the file; "
            "write them as plain values"
        ) from None
    try:
        inspect.signature(_DECORATORS[kind]).bind(*names, **arguments)
    except TypeError as error:
        raise RequestError(f"{place}: @{kind}: {error}") from None
    name = names[0] if names else arguments.pop("name")
    if not (isinstance(name, str) and name.isidentifier()):
        raise RequestError(
            f"{place}: the {kind} name {name!r} is not made of letters, digits and underscores"
        )
    options = _keyword_only(node, place) if isinstance(node, ast.FunctionDef) else {}
    if kind == "task":
        _check_task(arguments, f"{place}: task {name!r}")
    elif kind == "pruner":
        _check_name(arguments, "group", Group, f"{place}: pruner {name!r}")
    for option, interval in (arguments.get("limits") or {}).items():
        _check_limit(option, interval, {**options, **arguments.get("settings", {})}, place)
    summary = (ast.get_docstring(node) or "").partition("\n")[0].replace("``", "")
    return Entry(kind, name, node.name, source, module, arguments, options, summary)


def _check_task(arguments: Mapping[str, Any], whose: str) -> None:
    """Refuse a task's declaration that the engine could not work with."""
    _check_name(arguments, "goal", Goal, whose)
    if ":" not in str(arguments["data"]):
        raise RequestError(
            f"{whose}: data={arguments['data']!r} is not of the form MODULE:FUNCTION"
        )
    settings, profiles = arguments["settings"], arguments["profiles"]
    if not (isinstance(profiles, dict) and isinstance(settings, dict)):
        raise RequestError(f"{whose}: settings and profiles are dictionaries")
    for profile, changed in profiles.items():
        for name, (kind, meaning) in RECIPE.items():
            recipe = {**settings, **changed}
            if name not in recipe:
                wrong = ", ".join(missing for missing in RECIPE if missing not in recipe)
                raise RequestError(
                    f"{whose}: the setting {name!r} is missing ({meaning}); "
                    f"every task has {', '.join(RECIPE)}; missing: {wrong}"
                )
            value = recipe[name]
            number = isinstance(value, int | float) and not isinstance(value, bool)
            right = isinstance(value, kind) or (kind is float and number)
            if kind is str:
                right = value in conditions.CHOICES["optimiser"]
            if not right or (kind is int and value < 1) or (kind is float and value < 0):
                raise RequestError(
                    f"{whose}: the setting {name!r} is {value!r} in the profile {profile!r}, "
                    f"not {meaning}"
                )


def _check_name(arguments: Mapping[str, Any], key: str, permitted: Any, whose: str) -> None:
    known = get_args(permitted)
    if key in arguments and arguments[key] not in known:
        value = arguments[key]
        raise RequestError(f"{whose}: {key}={value!r} is unknown{nearest(str(value), known)}")


def _check_limit(name: str, interval: Any, known: Mapping[str, Any], place: str) -> None:
    if name not in known:
        raise RequestError(f"{place}: limits: there is no {name!r}{nearest(name, known)}")
    if not (isinstance(interval, str) and _INTERVAL.fullmatch(interval)):
        raise RequestError(
            f"{place}: limits: {interval!r} of {name!r} is no interval, as in '(0, 1]'"
        )


_INTERVAL = re.compile(r"([\[(])\s*([-+.\w]+)\s*,\s*([-+.\w]+)\s*([\])])")


def is_within(value: float, interval: str) -> bool:
    """Tell whether a number lies in an interval that is written as in ``(0, 1]``."""
    match = _INTERVAL.fullmatch(interval)
    assert match is not None
    opening, low, high, closing = match.groups()
    above = value >= float(low) if opening == "[" else value > float(low)
    below = value <= float(high) if closing == "]" else value < float(high)
    return above and below


def _keyword_only(function: ast.FunctionDef, place: str) -> dict[str, Any]:
    """Return the parameters after ``*`` with their defaults."""
    parameters = [parameter.arg for parameter in function.args.kwonlyargs]
    options = dict(zip(parameters, map(_literal, function.args.kw_defaults), strict=True))
    for name, default in options.items():
        if not isinstance(default, bool | int | float | str):
            raise RequestError(
                f"{place}: the option {name!r} needs a default that is a number, a text, "
                "True or False"
            )
    return options


def _literal(node: ast.expr | None) -> Any:
    """Return the value of a literal, None for anything else."""
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
