"""Measurements of finished networks, stored beside the records, which never change.

A run's folder has one file per kind of machine that has measured its network, in ``measurements/``.
A file keeps the newest measurement that no other work disturbed, and the newest of all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.storage import files

FOLDER = "measurements"

Measurement = Mapping[str, Any]
"""``machine`` and ``environment`` as in a record's provenance, ``taken`` (UTC), and ``cost``."""


def save_measurement(run: Path, measurement: Measurement) -> Path:
    """Add a measurement to a run's folder, and return its file.

    Args:
        run: the run's folder.
        measurement: what was measured, on which machine and when.
    """
    path = run / FOLDER / f"{measurement['machine']}.json"
    quiet = [each for each in _read(path) if is_quiet(each)][-1:]
    kept = [measurement] if is_quiet(measurement) else [*quiet, measurement]
    path.parent.mkdir(exist_ok=True)
    files.write(path, (json.dumps(kept, indent=1, allow_nan=False) + "\n").encode())
    return path


def copy_measurements(source: Path, target: Path) -> None:
    """Copy the measurements of machines that have not measured a run's network here.

    Args:
        source: the run's folder to copy from.
        target: the run's folder here.
    """
    for path in sorted((source / FOLDER).glob("*.json")):
        own = target / FOLDER / path.name
        if not files.is_there(own) and _read(path):
            own.parent.mkdir(exist_ok=True)
            files.write(own, path.read_bytes())


def measurements(run: Path) -> list[Measurement]:
    """Return the measurement that counts of each machine, the newest one last.

    That is the newest quiet one; if none was quiet, the newest.
    """
    found: list[Measurement] = []
    for path in (run / FOLDER).glob("*.json"):
        every = _read(path)
        quiet = [each for each in every if is_quiet(each)]
        found += (quiet or every)[-1:]
    return sorted(found, key=lambda each: str(each["taken"]))


def is_quiet(measurement: Measurement) -> bool:
    """Return whether no other work disturbed a measurement."""
    return not measurement["cost"].get("disturbed")


def _read(path: Path) -> Sequence[Measurement]:
    """Return the measurements in a file, oldest first; none if it is missing or damaged."""
    try:
        content: object = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    entries = content if isinstance(content, list) else []
    return [
        entry
        for entry in entries
        if isinstance(entry, dict)
        and isinstance(entry.get("cost"), dict)
        and isinstance(entry.get("environment"), dict)
        and isinstance(entry.get("taken"), str)
    ]
