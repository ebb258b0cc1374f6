"""``data``: what data the tasks use, and whether they are there."""

from __future__ import annotations

import argparse

from harness.errors import RequestError, nearest
from harness.registry import Registry
from harness.spec import describe_data

ACTIONS = ("list", "check")


def execute(arguments: argparse.Namespace) -> int:
    """Print what each profile's data are, or why they cannot be used."""
    if arguments.action not in ACTIONS:
        hint = nearest(arguments.action, ACTIONS)
        raise RequestError(f"unknown action {arguments.action!r} of data{hint}")
    registry = Registry(arguments.plugin)
    if arguments.action == "check" and arguments.task is None:
        raise RequestError("data check: which task? as in: data check ptb")
    names = [arguments.task] if arguments.task else list(registry.of_kind("task"))
    missing = False
    for name in names:
        entry = registry.find("task", name)
        for profile in entry.arguments["profiles"]:
            try:
                settings = {**entry.arguments["settings"], **entry.arguments["profiles"][profile]}
                data = describe_data(entry, profile, settings, arguments.data)
            except RequestError as error:
                missing = True
                print(f"{name:<10} {profile:<9} missing: {error}")
            else:
                print(f"{name:<10} {profile:<9} {data.source}: {data.name}, {data.sha256[:12]}")
    return 2 if missing and arguments.action == "check" else 0
