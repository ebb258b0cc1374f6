"""The decorators that register tasks, pruners and units, and their reader.

Sources are parsed and not run, so that listing does not import torch. The decorators themselves
do nothing. Their arguments are plain values, or names that the file imports from a module that
does not import torch::

    from mine_settings import PROFILES, SETTINGS

    @task("mine", ..., settings=SETTINGS, profiles=PROFILES)
    class Mine(Task): ...
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from harness.entry import Entry, Kind
from harness.errors import RequestError, nearest
from harness.plugin_code import PluginCode, without_prefix
from harness.settings import Interval, Recipe, Setting, Settings, literal_settings

Definition = TypeVar("Definition", bound=Callable[..., Any])
Group = Literal["dense", "unstructured", "structured", "control"]
When = Literal["never", "before", "early", "during", "after"]
Need = Literal["gradients", "second derivatives", "activations", "dense gradients", "normalisation"]
Goal = Literal["max", "min"]


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
    unpacked: Mapping[str, str] | None = None,
    by_hand: Sequence[str] = (),
    sparsity: float = 0.98,
    version: int = 1,
) -> Callable[[Definition], Definition]:
    """Register a subclass of `harness.task.Task`.

    Args:
        name: the name that ``--task`` takes.
        title: the name in tables and figures.
        metric: the key of the main metric in the result of ``evaluate``.
        goal: whether a larger (``max``) or smaller (``min``) metric is better.
        data: ``module:function`` of a function ``(profile, settings, data_folder)`` that returns
            the `harness.data.description.DataDescription` without importing torch.
            ``:function`` means the task's own module; a plug-in of one file has to use it.
        settings: every setting with its default: an instance of a subclass of
            `harness.settings.Recipe`, imported from a module that does not import torch, or a
            dictionary that has the settings of `harness.settings.Recipe` and the task's own.
        profiles: for each profile of the task, its settings as an instance of the same class, or
            a dictionary of the settings that differ.
        choices: the permitted values of settings that are texts, if ``settings`` is a dictionary.
        limits: the permitted values of settings that are numbers, as intervals, if ``settings``
            is a dictionary: ``"(0, 1]"`` is more than 0 and at most 1.
        downloads: for each official file its address and its MD5 or SHA-256, and ``unpack`` for an
            archive that has to be unpacked; ``data fetch`` puts them into the folder of the
            task's name in the data folder.
        unpacked: the checksum of each unpacked file that the task reads, by its path in that
            folder; ``data check`` says which of them are there.
        by_hand: a line for each set of files that the user has to download, because of a licence
            page or a registration: where in that folder they belong, and where to get them.
        sparsity: the default of ``--sparsity``.
        version: increased when results are no longer comparable with earlier ones.
    """
    return lambda definition: definition


def pruner(
    name: str,
    *,
    title: str,
    paper: str = "",
    group: Group = "unstructured",
    when: When | None = None,
    needs: Sequence[Need] = (),
    prunes: bool = True,
    obeys_budgets: bool = False,
    exceeds_budget: bool = False,
    choices: Mapping[str, Sequence[str]] | None = None,
    limits: Mapping[str, str] | None = None,
    version: int = 1,
) -> Callable[[Definition], Definition]:
    """Register a method: a function of a `harness.run.Run` and, after ``*``, its options.

    The section ``Args:`` of its docstring says what the options mean.

    Args:
        name: the name that ``--pruner`` takes.
        title: the name in tables and figures.
        paper: where the method was published.
        group: the rows of a table that it belongs to.
        when: when it prunes, relative to training.
        needs: what its criterion takes of the network, beyond the weights.
        prunes: False for a method that takes no sparsity: one that removes nothing, or as much as
            follows from a pattern or another option.
        obeys_budgets: True for a method that has no sparsity and keeps a budget (``--budget``). A
            method that prunes does both.
        exceeds_budget: True for a method that by nature trains longer than the others.
        choices: the permitted values of options that are texts, as for `task`.
        limits: the permitted values of options that are numbers, as for `task`.
        version: increased when results are no longer comparable with earlier ones.
    """
    return lambda definition: definition


def units(name: str) -> Callable[[Definition], Definition]:
    """Register an implementation of `harness.units.Units`, which says what can be pruned."""
    return lambda definition: definition


_DECORATORS: Mapping[Kind, Callable[..., Any]] = {"task": task, "pruner": pruner, "units": units}
_DECORATED = re.compile(r"^@\s*(task|pruner|units)\(", re.MULTILINE)


def read_source(source: Path, module: str | None) -> Iterator[Entry]:
    """Read the registered definitions of a file.

    Args:
        source: the file.
        module: its importable name; None for a file given by ``--plugin``.

    Raises:
        RequestError: a declaration is wrong.
        OSError, SyntaxError, ValueError: the file cannot be read, or is not Python.
    """
    text = source.read_text(encoding="utf-8")
    # Parsing takes long, so an installed file is parsed only if it has a decorator.
    if module is not None and not _DECORATED.search(text):
        return
    tree = ast.parse(text)
    names = _Names(tree, source, module)
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        for decorator in node.decorator_list:
            match decorator:
                case ast.Call(func=ast.Name(id="task" | "pruner" | "units" as kind)):
                    yield _entry(node, decorator, kind, names)


class _Names:
    """The values that a file imports, of which only those that are asked for are imported."""

    def __init__(self, tree: ast.Module, source: Path, module: str | None) -> None:
        self.source = source
        self.module = module
        self._imports = {
            alias.asname or alias.name: (node.level, node.module or "", alias.name)
            for node in tree.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }

    def value(self, node: ast.expr) -> Any:
        """Return the value of an argument.

        Raises:
            ValueError: it is neither a plain value nor an imported one.
        """
        match node:
            case ast.Name(id=name) if name in self._imports:
                return self._imported(*self._imports[name])
            case ast.Attribute(value=ast.Name() | ast.Attribute() as owner, attr=name):
                return getattr(self.value(owner), name)
        return ast.literal_eval(node)

    def _imported(self, level: int, module: str, name: str) -> Any:
        try:
            found = self._module(level, module)
            if hasattr(found, name):
                return getattr(found, name)
            return self._module(level, f"{module}.{name}" if module else name)
        except ValueError as error:  # raised by the module, which must not look like ours
            raise ImportError(str(error)) from error

    def _module(self, level: int, name: str) -> Any:
        code = None if self.module is not None else PluginCode(self.source)
        if level:
            own = self.module if code is None else code.name
            is_package = self.source.name == "__init__.py"
            package = str(own) if is_package else str(own).rpartition(".")[0]
            name = importlib.util.resolve_name("." * level + name, package)
        beside = None if code is None else code.load_beside(name)
        return beside or importlib.import_module(name)


def _entry(
    node: ast.FunctionDef | ast.ClassDef, call: ast.Call, kind: Kind, names: _Names
) -> Entry:
    place = f"{names.source.name}, line {call.lineno}"
    positional, arguments = _arguments(call, kind, names, place)
    name = positional[0] if positional else arguments.pop("name")
    if not (isinstance(name, str) and name.isidentifier()):
        raise RequestError(
            f"{place}: the {kind} name {name!r} is not made of letters, digits and underscores"
        )
    docstring = ast.get_docstring(node) or ""
    whose = f"{place}: {kind} {name!r}"
    settings_type = None
    if kind == "task":
        settings = arguments.get("settings")
        settings_type = type(settings) if isinstance(settings, Settings) else None
        declared = task_settings(arguments, docstring, place, whose)
    else:
        options = _keyword_only(node, place) if isinstance(node, ast.FunctionDef) else {}
        if kind == "pruner" and isinstance(node, ast.FunctionDef):
            _require_star(node, whose)
        declared = _literal(options, arguments, docstring, place)
        if kind == "pruner":
            _check_name(arguments, "group", Group, whose)
            _check_name(arguments, "when", When, whose)
            for need in arguments.get("needs", ()):
                _check_name({"needs": need}, "needs", Need, whose)
    return Entry(
        kind,
        name,
        node.name,
        names.source,
        names.module,
        arguments,
        docstring.partition("\n")[0].replace("``", ""),
        declared,
        settings_type,
    )


def _arguments(
    call: ast.Call, kind: Kind, names: _Names, place: str
) -> tuple[list[Any], dict[str, Any]]:
    try:
        positional = [names.value(argument) for argument in call.args]
        arguments = {word.arg or "**": names.value(word.value) for word in call.keywords}
    except ValueError:
        raise RequestError(
            f"{place}: the arguments of @{kind} are read without running the file; "
            "write them as plain values, or import them from a module without torch"
        ) from None
    except (Exception, SystemExit) as error:
        raise RequestError(
            f"{place}: an argument of @{kind} cannot be imported: "
            f"{without_prefix(f'{type(error).__name__}: {error}')}"
        ) from error
    try:
        inspect.signature(_DECORATORS[kind]).bind(*positional, **arguments)
    except TypeError as error:
        raise RequestError(f"{place}: @{kind}: {error}") from None
    return positional, arguments


def task_settings(
    arguments: dict[str, Any], docstring: str, place: str, whose: str
) -> dict[str, Setting]:
    """Check a task's declaration, and write its settings and profiles as dictionaries."""
    _check_name(arguments, "goal", Goal, whose)
    if ":" not in str(arguments["data"]):
        raise RequestError(
            f"{whose}: data={arguments['data']!r} is not of the form MODULE:FUNCTION"
        )
    settings, profiles = arguments["settings"], arguments["profiles"]
    if not (
        isinstance(settings, dict | Settings)
        and isinstance(profiles, dict)
        and all(isinstance(changes, dict | Settings) for changes in profiles.values())
    ):
        raise RequestError(f"{whose}: settings and profiles are dictionaries, or typed settings")
    if any(isinstance(each, Settings) and set(each) != set(settings) for each in profiles.values()):
        raise RequestError(f"{whose}: the settings of a profile are of another class")
    arguments["settings"] = dict(settings)
    arguments["profiles"] = {
        profile: {name: v for name, v in changes.items() if v != settings[name]}
        if isinstance(changes, Settings)
        else changes
        for profile, changes in profiles.items()
    }
    for profile, changes in arguments["profiles"].items():
        _check_recipe({**settings, **changes}, profile, whose)
        _check_types(settings, changes, profile, whose)
    recipe = Recipe.declared()
    if isinstance(settings, dict):
        only_in_profiles = {
            name: value
            for changes in profiles.values()
            for name, value in changes.items()
            if name not in settings
        }
        literal = _literal({**settings, **only_in_profiles}, arguments, docstring, place)
        for name in recipe.keys() & literal.keys():
            choices = literal[name].choices or recipe[name].choices
            literal[name] = replace(literal[name], help=recipe[name].help, choices=choices)
        return literal
    if "choices" in arguments or "limits" in arguments:
        raise RequestError(f"{whose}: the class of the settings says their choices and limits")
    declared = settings.described()
    permitted = {
        name: setting.choices
        for name, setting in declared.items()
        if setting.choices and name not in recipe
    }
    if permitted:
        arguments["choices"] = permitted
    return declared


def _literal(
    values: Mapping[str, Any], arguments: Mapping[str, Any], docstring: str, place: str
) -> dict[str, Setting]:
    """Describe settings or options that are written as plain values."""
    limits = arguments.get("limits") or {}
    for name, interval in limits.items():
        if name not in values:
            raise RequestError(f"{place}: limits: there is no {name!r}{nearest(name, values)}")
        try:
            Interval(interval)
        except (TypeError, ValueError):
            raise RequestError(
                f"{place}: limits: {interval!r} of {name!r} is not an interval, as in '(0, 1]'"
            ) from None
    choices = arguments.get("choices") or {}
    return literal_settings(values, described_arguments(docstring), choices, limits)


def _check_recipe(values: Mapping[str, Any], profile: str, whose: str) -> None:
    """Refuse settings that cannot be trained with."""
    recipe = Recipe.declared()
    if missing := [name for name in recipe if name not in values]:
        raise RequestError(
            f"{whose}: the setting {missing[0]!r} is missing ({recipe[missing[0]].help}); "
            f"every task has {', '.join(recipe)}; missing: {', '.join(missing)}"
        )
    for name, (is_right, expected) in _RECIPE_VALUES.items():
        if not is_right(values[name]):
            raise RequestError(
                f"{whose}: the setting {name!r} is {values[name]!r} in the profile {profile!r}, "
                f"not {expected}"
            )


def _check_types(
    settings: Mapping[str, Any], changes: Mapping[str, Any], profile: str, whose: str
) -> None:
    """Refuse values of a profile that are of another type than the defaults of their settings."""
    for name, value in changes.items():
        default = settings.get(name)
        expected = _TYPES.get(type(default))
        if name in _RECIPE_VALUES or expected is None:
            continue
        if type(value) is not type(default) and (type(default), type(value)) != (float, int):
            raise RequestError(
                f"{whose}: the setting {name!r} is {value!r} in the profile {profile!r}, "
                f"not {expected} like its default {default!r}"
            )


_TYPES: Mapping[type, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
}


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


_RECIPE_VALUES: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "epochs": (_is_positive, "a whole number of at least 1"),
    "batch_size": (_is_positive, "a whole number of at least 1"),
    "optimiser": (
        Recipe.declared()["optimiser"].choices.__contains__,
        f"one of {', '.join(Recipe.declared()['optimiser'].choices)}",
    ),
    "learning_rate": (_is_amount, "a number of at least 0"),
    "weight_decay": (_is_amount, "a number of at least 0"),
    "clip": (_is_amount, "a number of at least 0"),
}


def _check_name(arguments: Mapping[str, Any], key: str, permitted: Any, whose: str) -> None:
    known = get_args(permitted)
    if key in arguments and arguments[key] not in known:
        value = arguments[key]
        raise RequestError(f"{whose}: {key}={value!r} is unknown{nearest(str(value), known)}")


def _keyword_only(function: ast.FunctionDef, place: str) -> dict[str, Any]:
    """Return the parameters after ``*`` with their defaults."""
    parameters = [parameter.arg for parameter in function.args.kwonlyargs]
    options = dict(zip(parameters, map(_default, function.args.kw_defaults), strict=True))
    for name, default in options.items():
        if not isinstance(default, bool | int | float | str):
            raise RequestError(
                f"{place}: the option {name!r} needs a default that is a number, a text, "
                "True or False"
            )
    return options


def _require_star(function: ast.FunctionDef, whose: str) -> None:
    """Refuse an option before ``*``, which could not be set."""
    before = [each.arg for each in (*function.args.posonlyargs, *function.args.args)]
    if len(before) > 1:
        raise RequestError(
            f"{whose}: options follow a *, as in def {function.name}({before[0]}, *, "
            f"{'=..., '.join(before[1:])}=...)"
        )


def _default(node: ast.expr | None) -> Any:
    """Return the value of a literal, None for any other expression."""
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


def described_arguments(docstring: str) -> dict[str, str]:
    """Return what the section ``Args:`` of a docstring says, by name."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", docstring, re.MULTILINE)
    if section is None:
        return {}
    lines = inspect.cleandoc("\n" + section[1]).split("\n")
    found: dict[str, str] = {}
    name = ""
    for line in lines:
        if match := re.match(r"(\w+)(?: \([^)]*\))?: +(.*)", line):
            name, found[match[1]] = match[1], match[2]
        elif name and line.startswith(" "):
            found[name] += f" {line.strip()}"
    return {name: text.rstrip(".").replace("``", "") for name, text in found.items()}
