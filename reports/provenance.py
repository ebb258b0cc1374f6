"""What a reader needs to repeat a run, and nothing that names a person, a host or a folder."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.results.summary import summarise_events
from reports.quantities import COSTS, ENERGY, QUANTITIES

TAIL = 12
"""Lines of a log that are shown."""

_PACKAGES = r"(?:harness|tasks|pruners|reports|benchmarks)/"
_PATH = re.compile(
    r"(?<![\w.:/])(?:/|[A-Za-z]:\\)[^\s\"'<>|:*?,;()\[\]]*[/\\][^\s\"'<>|:*?,;()\[\]]*"
)


def without_paths(text: str) -> str:
    """Return a text whose absolute paths begin at the package, or are the bare file name."""
    return _PATH.sub(lambda match: _shortened(match.group()), text)


def _shortened(path: str) -> str:
    path = path.replace("\\", "/").rstrip("/")
    installed = path.rpartition("/site-packages/")[2]
    if installed != path:
        return installed
    package = re.search(_PACKAGES + r"[^/].*", path)
    return package.group() if package else path.rpartition("/")[2]


QUALITIES = ("test", "validation")

NUMBERS: Sequence[str] = (
    *("weight_sparsity", "node_sparsity", "effective_sparsity"),
    *(key for key in COSTS if key not in ("paper_disk", "current_allocation")),
)
"""Quantities that are shown of each run, after its metric on the test and validation data."""


def number_data() -> list[dict[str, Any]]:
    """Return the names of the numbers that `details` gives of a run after those of its metric."""
    return [
        {
            "key": key,
            "title": QUANTITIES[key].title,
            "theoretical": QUANTITIES[key].origin == "theoretical",
            "energy": key in ENERGY,
        }
        for key in NUMBERS
    ]


def _numbers(record: Mapping[str, Any]) -> list[float | None]:
    sparsity, cost = record["sparsity"], record["cost"]
    names = {"weight_sparsity": "weights", "node_sparsity": "nodes"}
    names["effective_sparsity"] = "effective"
    found = [record["quality"][name] for name in QUALITIES]
    for key in NUMBERS:
        value = sparsity.get(names[key]) if key in names else cost.get(key)
        found.append(None if value is None else QUANTITIES[key].scale * value)
    return [None if value is None else _five_digits(value) for value in found]


def _unmeasured(record: Mapping[str, Any]) -> str:
    """Return what was not measured, and why, each reason once."""
    together: dict[str, list[str]] = {}
    for key, reason in record["cost"].get("reasons", {}).items():
        if key in QUANTITIES and record["cost"].get(key) is None:
            together.setdefault(without_paths(reason), []).append(QUANTITIES[key].label)
    return "; ".join(f"{', '.join(labels)}: {reason}" for reason, labels in together.items())


def _disturbed(record: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the costs whose measurement was disturbed, with the share of time that this took."""
    shares = record["cost"].get("disturbed") or {}
    return {
        key: _five_digits(share) if isinstance(share, int | float) else None
        for key, share in shares.items()
    }


def _five_digits(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None


def details(record: Mapping[str, Any], failure: str | None) -> dict[str, Any]:
    """Return what is shown of one run: command, seed, numbers, commit, machine, versions, log."""
    provenance = record["provenance"]
    git = provenance.get("git") or {}
    commit = git.get("commit")
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
        "commit": f"{commit[:12]}{' with changes' if git.get('dirty') else ''}" if commit else None,
        "environment": environment(record),
        "log": "\n".join(log(record, failure).splitlines()[-TAIL:]),
    }


def environment(record: Mapping[str, Any]) -> str:
    """Return machine, versions and data in a few lines, which many runs have in common."""
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
        lines.append(f"data: {data['source']}, {data['name']}, sha256 {data['sha256'][:12]}")
    return without_paths("\n".join(line for line in lines if line))


def log(record: Mapping[str, Any], failure: str | None) -> str:
    """Return the traceback of a run that failed, of others what happened epoch by epoch."""
    if failure is not None:
        return failure
    return summarise_events(record) if record["events"] else ""
