"""``list``: the names and titles of what is registered, without importing torch."""

from __future__ import annotations

import argparse
import json
from typing import Any

from harness.errors import RequestError, nearest
from harness.registry import Entry, Kind, Registry
from harness.summary import columns

KINDS: dict[str, Kind] = {"tasks": "task", "pruners": "pruner"}


def execute(arguments: argparse.Namespace) -> int:
    """Print one kind, or all."""
    if arguments.kind is not None and arguments.kind not in KINDS:
        raise RequestError(f"cannot list {arguments.kind!r}{nearest(arguments.kind, KINDS)}")
    registry = Registry(arguments.plugin)
    kinds = [arguments.kind] if arguments.kind else list(KINDS)
    found = {kind: list(registry.of_kind(KINDS[kind]).values()) for kind in kinds}
    if arguments.json:
        objects = [{"kind": kind, **_object(e)} for kind, all_ in found.items() for e in all_]
        print(json.dumps(objects, indent=1))
    else:
        for kind, entries in found.items():
            rows = [(entry.name, entry.title, entry.summary or "-") for entry in entries]
            print(kind, columns(rows), sep="\n", end="\n\n" if kind != kinds[-1] else "\n")
    return 0


def _object(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        **entry.arguments,
        "title": entry.title,
        "summary": entry.summary,
        "version": entry.version,
        "options": entry.options,
    }
