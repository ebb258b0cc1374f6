"""Suites: TOML files that list the runs of a matrix.

    title = "Every pairing on embedded data"
    profile = "embedded"              # smoke, embedded (the default) or paper
    plugins = ["../mine.py"]          # as --plugin; relative to this file
    measure = "end"                   # when networks are measured: end, during or never

    [[runs]]                          # every combination of its axes; there may be several
    tasks = "all"                     # every registered one; or a list, ["digits", "ptb"];
    pruners = {all_except = ["ltr"]}  # or every one except some
    sparsities = [0.9, 0.98]          # default: the task's own
    budgets = ["macs=0.25"]           # in place of sparsities; see harness/budget.py
    seeds = [0, 1, 2]                 # or "0-4"; default: 0
    set = [{}, {epochs = 40}]         # as --set; a single table applies to all runs

    [resources]                       # per run; options of the command line take precedence
    hours = 2.0                       # stop a run that takes longer
    gigabytes = 8.0                   # stop a run that needs more memory
    threads = 1

The suites of this project are package data, in ``harness/suites``.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import itertools
import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.budget import Budget
from harness.errors import RequestError, nearest
from harness.registry import Kind, Registry
from harness.spec import PROFILES, as_text

FOLDER = Path(str(importlib.resources.files("harness") / "suites"))
"""The suites of this project."""


@dataclass(frozen=True)
class Names:
    """An axis of tasks or pruners: the listed names, or all others."""

    listed: tuple[str, ...] = ()
    all_except: bool = False
    """Whether the axis is every registered name except the listed ones."""

    def __contains__(self, name: str) -> bool:
        return (name in self.listed) != self.all_except

    def resolve(self, kind: Kind, registry: Registry) -> list[str]:
        """Return the names, in order.

        Raises:
            RequestError: a listed name is not registered.
        """
        for name in self.listed:
            registry.find(kind, name)
        if self.all_except:
            return [name for name in registry.of_kind(kind) if name not in self.listed]
        return list(self.listed)


ALL = Names(all_except=True)

MEASURE = ("end", "during", "never")
"""When the networks of a matrix are measured.

``end``: after all training, alone on the machine. ``during``: each when its run ends, beside other
runs. ``never``: not by the matrix; the command ``measure --missing`` can do it at any time.
"""


@dataclass(frozen=True)
class Axes:
    """A part of a suite: every combination of these values."""

    tasks: Names
    pruners: Names
    sparsities: tuple[float | None, ...] = (None,)
    """None stands for the task's own default."""
    budgets: tuple[str | None, ...] = (None,)
    """Budgets in place of sparsities; None stands for a sparsity."""
    seeds: tuple[int, ...] = (0,)
    options: tuple[Mapping[str, str], ...] = ({},)
    """Settings by name, as ``--set`` takes them."""


@dataclass(frozen=True)
class Suite:
    """A request for a matrix."""

    name: str
    title: str
    axes: tuple[Axes, ...]
    profile: str = "embedded"
    hours: float | None = None
    gigabytes: float | None = None
    threads: int | None = None
    plugins: tuple[Path, ...] = ()
    measure: str | None = None
    """When the networks are measured, a value of `MEASURE`; None for the default."""


@dataclass(frozen=True)
class Request:
    """One run of a suite."""

    task: str
    pruner: str
    sparsity: float | None
    seed: int
    profile: str
    overrides: Mapping[str, str] = field(default_factory=dict, hash=False)
    budget: str | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """What distinguishes this run from the others."""
        options = tuple(sorted(self.overrides.items()))
        target = self.sparsity, self.budget
        return self.task, self.pruner, target, self.seed, self.profile, options

    def __str__(self) -> str:
        words = [f"{self.pruner} on {self.task}"]
        words += [] if self.sparsity is None else [f"{self.sparsity:g}"]
        words += [] if self.budget is None else [self.budget]
        return " ".join([*words, f"seed {self.seed}", *map("=".join, self.overrides.items())])


def requests(suite: Suite, registry: Registry) -> list[Request]:
    """Return the runs of a suite, each once; a method that prunes nothing runs once per seed.

    Raises:
        RequestError: a name is not registered, or the suite has no runs.
    """
    found = {
        request.key: request for axes in suite.axes for request in _combine(axes, suite, registry)
    }
    if not found:
        raise RequestError(f"suite {suite.name} has no runs")
    return list(found.values())


def _combine(axes: Axes, suite: Suite, registry: Registry) -> Iterator[Request]:
    """Yield the combinations, all of the first seed before any of the second."""
    tasks, pruners = axes.tasks.resolve("task", registry), axes.pruners.resolve("pruner", registry)
    for seed, options, sparsity, budget, task, pruner in itertools.product(
        axes.seeds, axes.options, axes.sparsities, axes.budgets, tasks, pruners
    ):
        arguments = registry.find("pruner", pruner).arguments
        prunes = arguments.get("prunes", True)
        obeys = prunes or arguments.get("obeys_budgets", False)
        yield Request(
            task,
            pruner,
            sparsity if prunes else None,
            seed,
            suite.profile,
            options,
            budget if obeys else None,
        )


def select_runs(
    suite: str | None, axes: Mapping[str, Any], profile: str | None, name: str, title: str
) -> Suite:
    """Return a suite with some of its axes replaced, or a new one made of these axes.

    Tasks that the suite has select its runs on them, since the settings of a part are those of its
    tasks; other tasks replace those of every part.

    Args:
        suite: a suite's name or file; None for a new one, which needs tasks and pruners.
        axes: lists of ``tasks``, ``pruners``, ``sparsities`` or ``budgets``, and ``seeds``, as in a
            file.
        profile: replaces that of the suite; None to keep it.
        name: of a new suite.
        title: of a new suite.

    Raises:
        RequestError: the suite is unknown, or an axis is missing or wrong.
    """
    given = _parse_axes(axes)
    # Either replaces the other.
    if "budgets" in given:
        given["sparsities"] = (None,)
    elif "sparsities" in given:
        given["budgets"] = (None,)
    if profile is not None:
        check_profile(profile)
    if suite is not None:
        found = find_suite(suite)
        parts = found.axes
        if "tasks" in given:
            parts = _on_tasks(parts, given.pop("tasks"))
        parts = tuple(dataclasses.replace(part, **given) for part in parts)
        return dataclasses.replace(found, axes=parts, profile=profile or found.profile)
    for axis in ("tasks", "pruners"):
        if axis not in given:
            raise RequestError(f"--suite or --{axis} is missing (--{axis} all means every one)")
    return Suite(name, title, (Axes(**given),), profile or "embedded")


def _on_tasks(parts: tuple[Axes, ...], tasks: Names) -> tuple[Axes, ...]:
    """Return the parts that have these tasks, or every part with these tasks as a replacement."""
    known = all(any(name in part.tasks for part in parts) for name in tasks.listed)
    if tasks.all_except or not known:
        return tuple(dataclasses.replace(part, tasks=tasks) for part in parts)
    selected = [(part, tuple(n for n in tasks.listed if n in part.tasks)) for part in parts]
    return tuple(dataclasses.replace(part, tasks=Names(kept)) for part, kept in selected if kept)


def own_suites() -> list[Path]:
    """Return the files of this project's suites."""
    return sorted(FOLDER.glob("*.toml"))


def find_suite(name: str) -> Suite:
    """Return one of this project's suites by name, or the suite in a file.

    Raises:
        RequestError: there is none, or the file is not a suite.
    """
    known = {path.stem: path for path in own_suites()}
    if name in known:
        return read_suite(known[name])
    if not name.endswith(".toml"):
        raise RequestError(f"unknown suite {name!r}{nearest(name, known)}")
    return read_suite(Path(name))


def read_suite(path: Path) -> Suite:
    """Return the suite in a file.

    Raises:
        RequestError: the file is not a suite.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(f"suite {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise RequestError(f"suite {path} is not TOML: {error}") from None
    try:
        return _suite(path, content)
    except RequestError as error:
        raise RequestError(f"suite {path}: {error}") from None


def _suite(path: Path, content: Mapping[str, Any]) -> Suite:
    _known(content, ("title", "profile", "plugins", "measure", "runs", "resources"))
    resources = _value("resources", content.get("resources", {}), dict)
    _known(resources, ("hours", "gigabytes", "threads"))
    tables = _value("runs", content.get("runs", []), list)
    axes = tuple(_axes(_value("runs", table, dict)) for table in tables)
    _refuse_duplicates(axes)
    plugins = [
        path.parent / Path(_value("plugins", plugin, str)).expanduser()
        for plugin in _value("plugins", content.get("plugins", []), list)
    ]
    return Suite(
        path.stem,
        _value("title", content.get("title", path.stem), str),
        axes,
        check_profile(_value("profile", content.get("profile", "embedded"), str)),
        **{
            key: _positive(key, resources[key], float)
            for key in ("hours", "gigabytes")
            if key in resources
        },
        threads=_positive("threads", resources["threads"], int) if "threads" in resources else None,
        plugins=tuple(plugins),
        measure=check_measure(content["measure"]) if "measure" in content else None,
    )


def check_measure(when: object) -> str:
    """Return when networks are measured.

    Raises:
        RequestError: it is not a value of `MEASURE`.
    """
    if when not in MEASURE:
        raise RequestError(f"measure: {when!r} is not one of {', '.join(MEASURE)}")
    return str(when)


def check_profile(name: str) -> str:
    """Return the name of a profile.

    Raises:
        RequestError: there is no such profile.
    """
    if name not in PROFILES:
        raise RequestError(f"unknown profile {name!r}{nearest(name, PROFILES)}")
    return name


def _axes(table: Mapping[str, Any]) -> Axes:
    _known(table, ("tasks", "pruners", "sparsities", "budgets", "seeds", "set", _OLD_SET))
    for axis in ("tasks", "pruners"):
        if axis not in table:
            raise RequestError(f"the axis {axis!r} is missing from [[runs]]")
    axes = _parse_axes(table)
    if {"set", _OLD_SET} <= table.keys():
        raise RequestError(f"set and {_OLD_SET} are the same; write set only")
    for key in {"set", _OLD_SET} & table.keys():
        value = table[key]
        tables = _values(key, [value] if isinstance(value, dict) else value, dict)
        axes["options"] = tuple(map(_changes, tables))
    return Axes(**axes)


def _parse_axes(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the axes in a table, except ``set``, after checking their values."""
    axes: dict[str, Any] = {
        axis: _names(axis, table[axis]) for axis in ("tasks", "pruners") if axis in table
    }
    if "sparsities" in table:
        axes["sparsities"] = _values("sparsities", table["sparsities"], float)
        check_sparsities(axes["sparsities"])
    if "budgets" in table:
        if "sparsities" in table:
            raise RequestError("sparsities and budgets: a run has one or the other")
        budgets = _values("budgets", table["budgets"], str)
        axes["budgets"] = _distinct("budgets", [str(Budget.parse(budget)) for budget in budgets])
    if "seeds" in table:
        seeds = table["seeds"]
        is_text = isinstance(seeds, str)
        axes["seeds"] = _seeds(seeds) if is_text else _values("seeds", seeds, int)
        check_seeds(axes["seeds"])
    return axes


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return parse_seeds(text)
    except RequestError as error:
        raise RequestError(f"seeds = {error}") from None


_OLD_SET = "options"
"""The former name of ``set``."""


def _changes(table: Mapping[str, Any]) -> dict[str, str]:
    """Return settings as ``--set`` takes them."""
    for name, value in table.items():
        if not isinstance(value, bool | int | float | str):
            raise RequestError(f"set: {name}: {value!r} is not a number, a string, true or false")
    return {name: as_text(value) for name, value in table.items()}


MOST_SEEDS = 10_000
"""Longest range of seeds."""


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds in a text such as ``0,1,2``, ``0-4`` or ``0-2,7``.

    Raises:
        RequestError: the text has another form, or names a seed twice.
    """
    seeds: list[int] = []
    for word in filter(None, map(str.strip, text.split(","))):
        span = re.fullmatch(r"(\d+)\s*-\s*(\d+)", word)
        try:
            first, last = map(int, span.groups() if span else (word, word))
        except ValueError:
            raise RequestError(f"{text} is not a list of numbers, as in 0,1,2 or 0-4") from None
        if span and not first <= last < first + MOST_SEEDS:
            why = "ends before it begins" if last < first else f"has more than {MOST_SEEDS:,} seeds"
            raise RequestError(f"{text}: {word} {why}")
        seeds += range(first, last + 1)
    if not seeds:
        raise RequestError(f"{text} is empty")
    if len(set(seeds)) < len(seeds):
        raise RequestError(f"{text}: names a seed twice")
    return tuple(seeds)


def check_seeds(seeds: Sequence[int]) -> None:
    """Check seeds.

    Raises:
        RequestError: one is negative.
    """
    for seed in seeds:
        if seed < 0:
            raise RequestError(f"seed {seed} is negative; seeds are 0, 1, 2 ...")


def check_sparsities(sparsities: Sequence[float]) -> None:
    """Check sparsities.

    Raises:
        RequestError: one is outside [0, 1).
    """
    for sparsity in sparsities:
        if not 0 <= sparsity < 1:
            raise RequestError(
                f"sparsity {sparsity:g} is outside [0, 1): "
                "it is the fraction of weights to remove, as in 0.98"
            )


def _names(axis: str, value: Any) -> Names:
    if value == "all":
        return ALL
    if isinstance(value, dict):
        _known(value, ("all_except",))
        return Names(_values(axis, value.get("all_except", []), str), all_except=True)
    if isinstance(value, str):
        raise RequestError(f"{axis} = {value!r} is neither a list of names nor 'all'")
    return Names(_values(axis, value, str))


def _known(table: Mapping[str, Any], keys: Sequence[str]) -> None:
    for key in table:
        if key not in keys:
            raise RequestError(f"unknown key {key!r}{nearest(key, keys)}")


_KINDS: Mapping[type, str] = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    dict: "a table",
    list: "a list",
}


def _value(key: str, value: Any, kind: type) -> Any:
    """Return a value of that type; a whole number counts as a number, a bool does not."""
    accepted = (int, float) if kind is float else kind
    if isinstance(value, bool) or not isinstance(value, accepted):
        raise RequestError(f"{key}: {value!r} is not {_KINDS[kind]}")
    return value


def _positive(key: str, value: Any, kind: type) -> Any:
    if not 0 < _value(key, value, kind) < math.inf:
        raise RequestError(f"{key}: {value!r} is not greater than 0")
    return value


def _values(axis: str, values: Any, kind: type) -> tuple[Any, ...]:
    """Return the values of an axis, which have one type and are distinct."""
    checked = tuple(_value(axis, value, kind) for value in _value(axis, values, list))
    if not checked:
        raise RequestError(f"the axis {axis!r} is empty")
    return _distinct(axis, checked)


def _distinct(axis: str, values: Sequence[Any]) -> tuple[Any, ...]:
    for number, value in enumerate(values):
        if value in values[:number]:
            raise RequestError(f"the axis {axis!r} has {value!r} twice")
    return tuple(values)


def _refuse_duplicates(axes: Sequence[Axes]) -> None:
    """Refuse parts that overlap, unless they say "all"."""
    seen: set[tuple[Any, ...]] = set()
    for part in axes:
        if part.tasks.all_except or part.pruners.all_except:
            continue
        for task, pruner, sparsity, budget, seed, options in itertools.product(
            part.tasks.listed,
            part.pruners.listed,
            part.sparsities,
            part.budgets,
            part.seeds,
            part.options,
        ):
            request = Request(task, pruner, sparsity, seed, "", options, budget)
            if request.key in seen:
                raise RequestError(f"lists this run twice: {request}")
            seen.add(request.key)
