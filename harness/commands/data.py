"""``data``: what data the tasks use, whether they are there, and how they get there."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from harness.archives import extract
from harness.download import download
from harness.errors import RequestError, nearest
from harness.progress import Progress
from harness.registry import Entry, Registry
from harness.spec import describe_data
from harness.summary import columns

ACTIONS = ("list", "fetch", "check")


def execute(arguments: argparse.Namespace) -> int:
    """List, fetch or check."""
    action, name, folder = arguments.action, arguments.task, arguments.data
    if action not in ACTIONS:
        raise RequestError(f"unknown action {action!r} of data{nearest(action, ACTIONS)}")
    registry = Registry(arguments.plugin)
    tasks = registry.of_kind("task")
    if name is None and action != "list":
        raise RequestError(f"data {action} needs a task{nearest('', tasks)}")
    chosen = list(tasks.values()) if name is None else [registry.find("task", name)]
    if action == "fetch":
        _fetch(chosen[0], folder)
        return 0
    problems = _list(chosen, folder)
    if problems and action == "check":
        raise RequestError("; ".join(problems))
    return 0


def _list(tasks: Iterable[Entry], folder: Path) -> list[str]:
    """Print what each profile's data are; return why some cannot be used."""
    rows, problems = [("task", "profile", "source", "sha256", "data")], []
    for task in tasks:
        for profile, changes in task.arguments["profiles"].items():
            settings = {**task.arguments["settings"], **changes}
            try:
                data = describe_data(task, profile, settings, folder)
            except RequestError as error:
                problems.append(str(error))
                rows.append((task.name, profile, "missing", "-", str(error)))
            else:
                rows.append((task.name, profile, data.source, data.sha256[:8], data.name))
    print(columns(rows))
    return list(dict.fromkeys(problems))


def _fetch(task: Entry, data_folder: Path) -> None:
    """Download the official files of a task and unpack them; say which the user has to get."""
    downloads = task.arguments.get("downloads") or {}
    by_hand = task.arguments.get("by_hand", ())
    if not downloads and not by_hand:
        print(f"{task.name} needs no downloads")
    progress = Progress(sys.stderr)
    folder = data_folder / task.name
    for line in by_hand:
        print(f"by hand, below {folder}: {line}")
    for name, (url, checksum, *wanted) in downloads.items():
        is_new = download(url, folder / name, checksum, progress.update)
        if "unpack" in wanted:
            is_new |= extract(folder / name, folder, progress.update)
        progress.clear()
        print(f"{folder / name} {'is there now' if is_new else 'was there before'}", flush=True)
