"""Time and memory that a run will take, estimated from similar runs that are done."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable

from harness.record import Record
from harness.spec import Plan

PROCESS_BYTES = 400_000_000
"""Memory of a process that has imported torch and built no network yet."""

Kind = tuple[str, ...]


class Estimates:
    """Duration and memory by task, profile and pruner.

    Args:
        records: runs that are done.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._seconds: dict[Kind, list[float]] = defaultdict(list)
        self._bytes: dict[Kind, list[float]] = defaultdict(list)
        for record in records:
            spec, cost = record["spec"], record["cost"]
            for kind in _kinds(spec["task"], spec["profile"], spec["pruner"]):
                if cost["train_seconds"] is not None:
                    self._seconds[kind].append(cost["train_seconds"])
                most = cost.get("peak_run_bytes_with_instruments", cost["peak_run_bytes"])
                if most is not None:
                    self._bytes[kind].append(most)

    def seconds(self, task: str, profile: str, pruner: str) -> float | None:
        """Return the median training time of the most similar runs; None if there are none."""
        for kind in _kinds(task, profile, pruner):
            if kind in self._seconds:
                return statistics.median(self._seconds[kind])
        return None

    def bytes(self, plan: Plan) -> int | None:
        """Return the most memory that similar runs needed; None if there are none."""
        spec = plan.spec
        for kind in _kinds(spec.task, spec.profile, spec.pruner):
            if kind in self._bytes:
                return int(max(self._bytes[kind])) + PROCESS_BYTES
        return None


def _kinds(task: str, profile: str, pruner: str) -> tuple[Kind, Kind]:
    """Return what similar runs have in common, the closest first."""
    return (task, profile, pruner), (task, profile)
