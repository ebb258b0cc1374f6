"""``list``: names and titles of tasks, pruners and suites, without importing torch."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.commands import options
from harness.errors import RequestError, nearest
from harness.matrix.estimates import Estimates, duration
from harness.matrix.suite import own_suites, read_suite, requests
from harness.registry import Entry, Kind, Registry
from harness.storage.store import Store
from harness.text import columns, first_of, several

KINDS: dict[str, Kind] = {"tasks": "task", "pruners": "pruner"}
SUITES = "suites"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("kind", nargs="?", metavar="tasks|pruners|suites", help="default: all")
    options.add_json(parser, "print one array of objects instead")
    options.add_results(parser, "results from which the duration of suites is estimated")
    options.add_plugin(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Print one kind, or all."""
    kinds = (*KINDS, SUITES)
    if arguments.kind is not None and arguments.kind not in kinds:
        raise RequestError(f"cannot list {arguments.kind!r}{nearest(arguments.kind, kinds)}")
    registry = Registry(arguments.plugin)
    chosen = [arguments.kind] if arguments.kind else list(kinds)
    found = {kind: _objects(kind, registry, arguments.results) for kind in chosen}
    if arguments.json:
        objects = [{"kind": kind, **each} for kind, all_ in found.items() for each in all_]
        print(json.dumps(objects, indent=1))
    else:
        print("\n\n".join(f"{kind}\n{columns(list(_rows(found[kind])))}" for kind in chosen))
    return 0


def _objects(kind: str, registry: Registry, results: Path) -> list[dict[str, Any]]:
    if kind != SUITES:
        return [_object(entry) for entry in registry.of_kind(KINDS[kind]).values()]
    estimates = Estimates(Store(results).records())
    return [_suite(path, registry, estimates) for path in own_suites()]


def _rows(objects: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for each in objects:
        if "runs" in each:
            size = "-" if each["runs"] is None else several(each["runs"], "run")
            takes = "-" if each["seconds"] is None else duration(each["seconds"])
            yield each["name"], size, takes, "; ".join(filter(None, (each["title"], each["why"])))
        else:
            yield each["name"], each["title"], each["summary"] or "-"


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
    """Return a suite with its size, and how long it takes by the results that there are."""
    try:
        suite = read_suite(path)
        wanted = requests(suite, registry)
    except RequestError as error:
        return {"name": path.stem, "title": str(error), "runs": None, "seconds": None, "why": None}
    known = {
        request: estimates.seconds(request.task, request.profile, request.pruner)
        for request in wanted
    }
    unknown = sorted({request.task for request, seconds in known.items() if seconds is None})
    return {
        "name": suite.name,
        "title": suite.title,
        "runs": len(wanted),
        "seconds": None if unknown else sum(seconds or 0 for seconds in known.values()),
        "why": f"no time: no {suite.profile} results of {first_of(unknown)}" if unknown else None,
    }
