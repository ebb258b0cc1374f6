"""Details of single runs: what is needed to repeat one. No person, host or folder is named."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from harness.record import Record
from harness.results.summary import summarise_events
from reports.quantities import BUDGET, ENERGY, IN_RECORD, OWN_COSTS, QUANTITIES, quantities_of

TAIL = 12
"""How many lines at the end of a log are shown."""

_PACKAGES = r"(?:harness|tasks|pruners|reports|benchmarks)/"
_PATH = re.compile(
    r"(?<![\w.:/])(?:/|[A-Za-z]:\\)[^\s\"'<>|:*?,;()\[\]]*[/\\][^\s\"'<>|:*?,;()\[\]]*"
)


def without_paths(text: str) -> str:
    """Return a text with absolute paths shortened: to begin at a package, or to the file name."""
    return _PATH.sub(lambda match: _shortened(match.group()), text)


def _shortened(path: str) -> str:
    path = path.replace("\\", "/").rstrip("/")
    installed = path.rpartition("/site-packages/")[2]
    if installed != path:
        return installed
    package = re.search(_PACKAGES + r"[^/].*", path)
    return package.group() if package else path.rpartition("/")[2]


NUMBERS: Sequence[str] = (*BUDGET, *IN_RECORD, *OWN_COSTS)
"""Quantities that are shown of each run, after its metric on the test and validation data."""


def number_data() -> list[dict[str, Any]]:
    """Return the names of the numbers that follow those of the metric in `details`."""
    return [
        {
            "key": key,
            "title": QUANTITIES[key].title,
            "theoretical": QUANTITIES[key].theoretical,
            "energy": key in ENERGY,
        }
        for key in NUMBERS
    ]


def _numbers(record: Record) -> list[float | None]:
    known = quantities_of(record)
    found = [record["quality"]["test"], record["quality"]["validation"]]
    for key in NUMBERS:
        value = known[key]
        found.append(None if value is None else QUANTITIES[key].scale * value)
    return [None if value is None else _five_digits(value) for value in found]


def _unmeasured(record: Record) -> str:
    """Return which quantities were not measured, and why; each reason occurs once."""
    together: dict[str, list[str]] = {}
    known = quantities_of(record)
    for key, reason in record["cost"].get("reasons", {}).items():
        if key in QUANTITIES and known[key] is None:
            together.setdefault(without_paths(reason), []).append(QUANTITIES[key].label)
    return "; ".join(f"{', '.join(labels)}: {reason}" for reason, labels in together.items())


def _disturbed(record: Record) -> dict[str, float | None]:
    """Return the costs whose measurement was disturbed, each with the share of the disturbance."""
    shares = record["cost"].get("disturbed", {})
    return {key: None if share is None else _five_digits(share) for key, share in shares.items()}


def _five_digits(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None


def details(record: Record, failure: str | None) -> dict[str, Any]:
    """Return what is shown of one run: command, seed, numbers, commit, machine, versions, log.

    Args:
        record: of the run.
        failure: the traceback of a run that failed.
    """
    provenance = record["provenance"]
    git = provenance.get("git")
    commit = git["commit"] if git else None
    return {
        "status": record["status"],
        "reason": None if record["reason"] is None else without_paths(record["reason"]),
        "command": without_paths(str(provenance.get("command") or "")),
        "seed": record["spec"]["seed"],
        "metric": record["quality"]["metric"].replace("_", " "),
        "numbers": _numbers(record),
        "estimated": not str(record["cost"].get("energy_method") or "").startswith("measured"),
        "disturbed": _disturbed(record),
        "unmeasured": _unmeasured(record),
        "commit": f"{commit[:12]}{' with changes' if git and git.get('dirty') else ''}"
        if commit
        else None,
        "environment": environment(record),
        "log": "\n".join(log(record, failure).splitlines()[-TAIL:]),
    }


def environment(record: Record) -> str:
    """Return the machine, versions and data in a few lines, which are equal for many runs."""
    provenance = record["provenance"]
    lines = []
    if "device" in provenance:
        threads = provenance["threads"]
        lines.append(f"{provenance['device']}, {threads} thread{'s' * (threads != 1)}")
    if "system" in provenance:
        lines.append(str(provenance["system"]))
    versions = provenance.get("versions") or {}
    lines.append(", ".join(f"{name} {version}" for name, version in versions.items() if version))
    data = record["data"]
    if data["source"] is not None:
        lines.append(f"data: {data['source']}, {data['name']}, sha256 {str(data['sha256'])[:12]}")
    return without_paths("\n".join(line for line in lines if line))


def log(record: Record, failure: str | None) -> str:
    """Return the traceback of a run that failed; for others, what happened epoch by epoch."""
    if failure is not None:
        return failure
    return summarise_events(record) if record["events"] else ""
