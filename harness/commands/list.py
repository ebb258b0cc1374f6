"""``list``: names and titles, or all settings of one task or pruner, without importing torch."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.commands import options
from harness.conditions import Conditions
from harness.errors import RequestError, nearest
from harness.matrix.estimates import Estimates
from harness.matrix.suite import own_suites, read_suite, requests
from harness.registry import Entry, Kind, Registry
from harness.settings import Setting, as_text
from harness.storage.store import Store
from harness.text import columns, duration, first_of, several

KINDS: dict[str, Kind] = {"tasks": "task", "pruners": "pruner"}
SUITES = "suites"
CONDITIONS = "conditions"

WHAT_CAN_BE_SET = """
To see what can be set: python -m harness list task NAME
                        python -m harness list pruner NAME
                        python -m harness list conditions"""

UNKNOWN_DURATION = """
-: the duration is unknown, because some tasks of the suite have no results yet"""

WHEN: Mapping[str | None, str] = {
    "never": "pruners that never prune",
    "before": "pruners before training",
    "early": "pruners early in training",
    "during": "pruners during training",
    "after": "pruners after training",
    None: "pruners at a time that they do not state",
}

_SINGULAR: dict[str, Kind] = {"task": "task", "pruner": "pruner"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "kind",
        nargs="?",
        metavar="KIND",
        help="tasks, pruners, suites or conditions (default: tasks, pruners and suites)",
    )
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="after task or pruner: list what can be set for it"
    )
    options.add_json(parser, "print JSON instead")
    options.add_results(parser, "results from which the duration of suites is estimated")
    options.add_plugin(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Print one kind, all kinds, or everything that can be set for one task or pruner."""
    kind, name = arguments.kind, arguments.name
    kinds = (*KINDS, SUITES, *_SINGULAR, CONDITIONS)
    if kind is not None and kind not in kinds:
        raise RequestError(f"cannot list {kind!r}{nearest(kind, (*KINDS, SUITES, CONDITIONS))}")
    if name is not None and kind not in {**KINDS, **_SINGULAR}:
        raise RequestError(f"list {kind} takes no name")
    registry = Registry(arguments.plugin)
    if kind == CONDITIONS:
        _print_settings([], {"condition": Conditions.declared()}, {}, arguments.json)
        return 0
    if kind in _SINGULAR and name is None:
        raise RequestError(
            f"list {kind} needs a name{nearest('', registry.of_kind(_SINGULAR[kind]))}"
        )
    if name is not None:
        _print_entry(registry.find({**KINDS, **_SINGULAR}[kind], name), arguments.json)
        return 0
    chosen = [kind] if kind else [*KINDS, SUITES]
    found = {kind: _objects(kind, registry, arguments.results) for kind in chosen}
    if arguments.json:
        objects = [{"kind": kind, **each} for kind, all_ in found.items() for each in all_]
        print(json.dumps(objects, indent=1))
    else:
        print("\n\n".join(_section(kind, found[kind]) for kind in chosen))
        if any(each.get("why") for each in found.get(SUITES, ())):
            print(UNKNOWN_DURATION)
        if not {*chosen}.isdisjoint(KINDS):
            print(WHAT_CAN_BE_SET)
    return 0


def _print_entry(entry: Entry, as_json: bool) -> None:
    """Print the settings of a task or the options of a pruner, and the conditions."""
    arguments = entry.arguments
    head = [f"{entry.name}: {entry.title}", *filter(None, [entry.summary])]
    profiles: Mapping[str, Mapping[str, Any]] = {}
    if entry.kind == "task":
        better = "higher" if arguments["goal"] == "max" else "lower"
        head.append(f"metric: {arguments['metric']} ({better} is better)")
        profiles = arguments["profiles"]
    elif arguments.get("paper"):
        head.append(f"paper: {arguments['paper']}")
    own = "setting" if entry.kind == "task" else "option"
    groups = {own: entry.declared, "condition": Conditions.declared()}
    _print_settings(head, groups, profiles, as_json)


def _print_settings(
    head: Sequence[str],
    groups: Mapping[str, Mapping[str, Setting]],
    profiles: Mapping[str, Mapping[str, Any]],
    as_json: bool,
) -> None:
    """Print settings with their meanings, defaults and permitted values.

    Args:
        head: lines that come first.
        groups: settings by the kind of setting.
        profiles: the values in which each profile differs.
        as_json: whether to print one array of objects.
    """
    if as_json:
        objects = [
            _setting_object(kind, setting, profiles)
            for kind, settings in groups.items()
            for setting in settings.values()
        ]
        print(json.dumps(objects, indent=1))
        return
    sections = ["\n".join(head)] if head else []
    titles = {
        "setting": "settings of the task",
        "option": "options of the pruner",
        "condition": "conditions of every run",
    }
    for kind, settings in groups.items():
        rows = [row for setting in settings.values() for row in _setting_rows(setting, profiles)]
        body = columns([("name", "default", "meaning"), *rows]) if rows else "  none"
        sections.append(f"{titles[kind]} (--set NAME=VALUE)\n{body}")
    print("\n\n".join(sections))


def _setting_rows(
    setting: Setting, profiles: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, str, str]]:
    """Yield a line for the meaning of a setting, and a line for the values that it takes."""
    yield setting.name, as_text(setting.default), setting.help or "-"
    changed = [
        f"{profile}: {as_text(changes[setting.name])}"
        for profile, changes in profiles.items()
        if setting.name in changes
    ]
    yield "", "", "; ".join([setting.permitted, *changed])


def _setting_object(
    kind: str, setting: Setting, profiles: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    return {
        "kind": kind,
        "name": setting.name,
        "title": setting.help,
        "default": setting.default,
        "permitted": setting.permitted,
        "choices": setting.choices,
        "interval": None if setting.interval is None else str(setting.interval),
        "profiles": {
            profile: changes[setting.name]
            for profile, changes in profiles.items()
            if setting.name in changes
        },
    }


def _objects(kind: str, registry: Registry, results: Path) -> list[dict[str, Any]]:
    if kind != SUITES:
        return [_object(entry) for entry in registry.of_kind(KINDS[kind]).values()]
    estimates = Estimates(Store(results).records())
    return [_suite(path, registry, estimates) for path in own_suites()]


def _section(kind: str, objects: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows of a kind under its name; pruners are grouped by when they prune."""
    if kind != "pruners":
        return f"{kind}\n{columns(list(_rows(objects)))}"
    groups = {
        heading: [each for each in objects if each.get("when") == when]
        for when, heading in WHEN.items()
    }
    tables = [f"{heading}\n{columns(list(_rows(g)))}" for heading, g in groups.items() if g]
    return "\n\n".join(tables)


def _rows(objects: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for each in objects:
        if "runs" in each:
            size = "-" if each["runs"] is None else several(each["runs"], "run")
            takes = "-" if each["seconds"] is None else duration(each["seconds"])
            yield each["name"], size, takes, each["title"]
        else:
            yield each["name"], each["title"], f"{each['summary']}{_needs(each)}" or "-"


def _needs(each: Mapping[str, Any]) -> str:
    """Return a sentence about what a method needs, empty if that is nothing."""
    needs = [*each.get("needs", ())]
    needs += ["longer training"] if each.get("exceeds_budget") else []
    return f" Needs {' and '.join(needs)}." if needs else ""


def _object(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        **entry.arguments,
        "title": entry.title,
        "summary": entry.summary,
        "version": entry.version,
        "options": entry.options,
    }


def _suite(path: Path, registry: Registry, estimates: Estimates) -> dict[str, Any]:
    """Return a suite with its size, and its duration as estimated from the results."""
    try:
        suite = read_suite(path)
        wanted = requests(suite, registry)
    except RequestError as error:
        return {"name": path.stem, "title": str(error), "runs": None, "seconds": None, "why": None}
    known = {
        request: estimates.seconds(request.task, request.profile, request.pruner)
        for request in wanted
    }
    lacking = sorted({request.task for request, seconds in known.items() if seconds is None})
    why = f"duration unknown: no {suite.profile} results yet for {first_of(lacking)}"
    return {
        "name": suite.name,
        "title": suite.title,
        "runs": len(wanted),
        "seconds": None if lacking else sum(seconds or 0 for seconds in known.values()),
        "why": why if lacking else None,
    }
