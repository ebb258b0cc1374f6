"""``data``: lists, fetches and checks the data of the tasks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.commands import options
from harness.data.download import download, extract
from harness.data.official import forms
from harness.errors import RequestError, nearest
from harness.output import Progress
from harness.registry import Entry, Registry
from harness.spec import describe_data, where_settings_are_listed
from harness.text import columns

ACTIONS = ("list", "fetch", "check")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "action",
        metavar="list|fetch|check",
        help="list what each profile uses, download official files, or verify that data are usable",
    )
    parser.add_argument(
        "task", nargs="?", metavar="TASK", help="a task; list takes all if none is given"
    )
    options.add_set(parser)
    options.add_data(parser)
    options.add_plugin(parser)


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
    changes = options.parse_settings(arguments.set)
    if changes and (name is None or action == "fetch"):
        raise RequestError("--set is for data list TASK and data check TASK only")
    if action == "fetch":
        _fetch(chosen[0], folder)
        return 0
    problems = _list(chosen, folder, changes, explain=action == "list")
    if action == "check":
        _show_files(chosen[0], folder)
    if problems and action == "check":
        raise RequestError("; ".join(problems))
    return 0


def _list(
    tasks: Iterable[Entry], folder: Path, changes: Mapping[str, str], *, explain: bool
) -> list[str]:
    """Print the data of each profile, and return why some cannot be used.

    Args:
        tasks: the tasks.
        folder: the folder of official data.
        changes: settings that differ from those of a profile.
        explain: whether to print also why data cannot be used.
    """
    rows, problems = [("task", "profile", "source", "sha256", "data")], []
    for task in tasks:
        for profile in task.arguments["profiles"]:
            settings = _settings(task, profile, changes)
            try:
                data = describe_data(task, profile, settings, folder)
            except RequestError as error:
                problems.append(str(error))
                rows.append((task.name, profile, "missing", "-", str(error) if explain else "-"))
            else:
                rows.append((task.name, profile, data.source, data.sha256[:8], data.name))
    print(columns(rows))
    return list(dict.fromkeys(problems))


def _show_files(task: Entry, data_folder: Path) -> None:
    """Print which official files of a task are there, and in which form."""
    found = list(forms(data_folder / task.name, _checksums(task)))
    if found:
        print(f"files in {data_folder / task.name}:")
        print(columns([("file", "form"), *found]))


def _checksums(task: Entry) -> Mapping[str, str]:
    """Return the checksums of the files that a task reads, by their paths in its folder."""
    downloads = task.arguments.get("downloads") or {}
    unpacked = task.arguments.get("unpacked") or {}
    read = {name: checksum for name, (_, checksum, *wanted) in downloads.items() if not wanted}
    return {**read, **unpacked}


def _settings(task: Entry, profile: str, changes: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the settings of a profile with changes applied."""
    declared = task.settings_in(profile)
    values = {name: setting.default for name, setting in declared.items()}
    for name, text in changes.items():
        if name not in declared:
            raise RequestError(
                f"unknown setting {name!r} of {task.name}{nearest(name, declared)}"
                f"{where_settings_are_listed(task.name)}"
            )
        values[name] = declared[name].parse(text)
    return task.build_settings(values)


def _fetch(task: Entry, data_folder: Path) -> None:
    """Download and unpack the official files of a task, and name those to get by hand."""
    downloads = task.arguments.get("downloads") or {}
    by_hand = task.arguments.get("by_hand", ())
    if not downloads and not by_hand:
        print(f"nothing to download for {task.name}")
    progress = Progress(sys.stderr)
    folder = data_folder / task.name
    for line in by_hand:
        print(f"to get by hand, below {folder}: {line}")
    for name, (url, checksum, *wanted) in downloads.items():
        is_new = download(url, folder / name, checksum, progress.update)
        if "unpack" in wanted:
            is_new |= extract(folder / name, folder, progress.update)
        progress.clear()
        print(f"{folder / name} {'was downloaded' if is_new else 'exists already'}", flush=True)
