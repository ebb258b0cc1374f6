"""What every record says, also that of a run which has no result; without importing torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness import provenance
from harness.spec import Plan
from harness.store import SCHEMA


def without_result(plan: Plan, status: str, reason: str) -> dict[str, Any]:
    """Return the record of a run that failed or was skipped: it has nothing to show but why."""
    return {
        **head(plan, status, reason),
        "quality": no_quality(plan),
        "sparsity": {"requested": plan.spec.sparsity},
        "cost": {},
        "events": [],
        "provenance": {"git": provenance.commit(), "command": provenance.command(plan.spec)},
    }


def head(plan: Plan, status: str, reason: str | None) -> dict[str, Any]:
    """Return what a record begins with: which run this is, and how it ended."""
    return {
        "schema": SCHEMA,
        "run_id": plan.run_id,
        "status": status,
        "reason": reason,
        "spec": plan.spec.as_dict(),
        "task": _described(plan.task.arguments, plan.task.version, ("title", "group", "paper")),
        "pruner": _described(
            {"group": "unstructured", **plan.pruner.arguments},
            plan.pruner.version,
            ("title", "group", "paper", "exceeds_budget"),
        ),
        "data": plan.data.as_dict(),
        "start": None if plan.start is None else plan.start.as_dict(),
        "settings": {**plan.settings, **plan.options, **plan.conditions},
    }


def _described(arguments: Mapping[str, Any], version: int | str, keys: tuple[str, ...]) -> Any:
    return {**{key: arguments.get(key) for key in keys}, "version": version}


def no_quality(plan: Plan) -> dict[str, Any]:
    """Return the ``quality`` part of a run that was not tested."""
    arguments = plan.task.arguments
    return {
        "metric": arguments["metric"],
        "goal": arguments["goal"],
        "validation": None,
        "test": None,
        "baseline": None,
        "further": {},
    }
