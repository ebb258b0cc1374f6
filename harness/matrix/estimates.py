"""Time and memory that a run will take, estimated from similar runs that are done."""

from __future__ import annotations

import math
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
        others: further ones that count for durations only, because settings that change the memory
            may differ.
    """

    def __init__(self, records: Iterable[Record] = (), others: Iterable[Record] = ()) -> None:
        self._seconds: dict[Kind, list[float]] = defaultdict(list)
        self._bytes: dict[Kind, list[float]] = defaultdict(list)
        records = list(records)
        for record in (*records, *others):
            seconds = record["cost"]["train_seconds"]
            if seconds is not None:
                for kind in _kinds_of(record):
                    self._seconds[kind].append(seconds)
        for record in records:
            cost = record["cost"]
            for kind in _kinds_of(record):
                most = cost.get("peak_run_bytes_with_instruments", cost["peak_run_bytes"])
                if most is not None:
                    self._bytes[kind].append(most)

    def seconds(self, task: str, profile: str, pruner: str) -> float | None:
        """Return the median training time of the most similar runs; None if there are none."""
        for kind in _kinds(task, profile, pruner):
            if kind in self._seconds:
                return statistics.median(self._seconds[kind])
        return None

    def longest_first(self, plans: Iterable[Plan]) -> list[Plan]:
        """Return plans in the order in which they should start.

        Dense networks come first, since every comparison needs them. The longest of the others
        follow, so that none is left running alone at the end. A run of which nothing is known
        counts as longer than all others; equal ones keep their order.
        """

        def place(plan: Plan) -> tuple[bool, float]:
            spec = plan.spec
            seconds = self.seconds(spec.task, spec.profile, spec.pruner)
            is_dense = plan.pruner.arguments.get("group") == "dense"
            return not is_dense, -math.inf if seconds is None else -seconds

        return sorted(plans, key=place)

    def bytes(self, plan: Plan) -> int | None:
        """Return the most memory that similar runs needed; None if there are none."""
        spec = plan.spec
        for kind in _kinds(spec.task, spec.profile, spec.pruner):
            if kind in self._bytes:
                return int(max(self._bytes[kind])) + PROCESS_BYTES
        return None


def _kinds_of(record: Record) -> tuple[Kind, Kind]:
    spec = record["spec"]
    return _kinds(spec["task"], spec["profile"], spec["pruner"])


def _kinds(task: str, profile: str, pruner: str) -> tuple[Kind, Kind]:
    """Return what similar runs have in common, the closest first."""
    return (task, profile, pruner), (task, profile)
