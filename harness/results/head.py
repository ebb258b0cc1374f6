"""What every record says, also that of a run without a result; torch is not imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.conditions import Conditions
from harness.registry import Entry
from harness.results import provenance
from harness.settings import as_text
from harness.spec import ENGINE_VERSION, Plan, Spec
from harness.storage.store import SCHEMA


def without_result(plan: Plan, status: str, reason: str) -> dict[str, Any]:
    """Return the record of a run that failed or was skipped: it has nothing to show but why."""
    nothing = _nothing(plan.spec, plan.task, git=provenance.commit())
    return {**head(plan, status, reason), **nothing}


def asked_for(plan: Plan) -> dict[str, Any]:
    """Return what stands for a run until it has a record."""
    return {**head(plan, "missing", None), **_nothing(plan.spec, plan.task)}


def not_planned(spec: Spec, task: Entry, pruner: Entry, status: str, reason: str) -> dict[str, Any]:
    """Return what stands for a run that could not be planned: its data are not known."""
    arguments = task.arguments
    changed = [f"{name}={as_text(value)}" for name, value in spec.overrides.items()]
    name = f"{spec.task}-{spec.pruner}-{spec.target}-seed{spec.seed}"
    return {
        "schema": SCHEMA,
        "run_id": "-".join([name, spec.profile, *changed]),
        "status": status,
        "reason": reason,
        **_which(spec, task, pruner),
        "data": {"source": None, "name": None, "sha256": None, "stands_in_for": None},
        "settings": {**arguments["settings"], **pruner.options, **Conditions()},
        **_nothing(spec, task),
    }


def head(plan: Plan, status: str, reason: str | None) -> dict[str, Any]:
    """Return what a record begins with: which run this is, and how it ended."""
    return {
        "schema": SCHEMA,
        "run_id": plan.run_id,
        "status": status,
        "reason": reason,
        **_which(plan.spec, plan.task, plan.pruner),
        "data": plan.data.as_dict(),
        "start": None if plan.start is None else plan.start.as_dict(),
        # What was changed is said as the spec says it, which names no folder of this machine.
        "settings": {
            **plan.settings,
            **plan.options,
            **plan.conditions,
            **plan.spec.overrides,
        },
    }


def _which(spec: Spec, task: Entry, pruner: Entry) -> dict[str, Any]:
    return {
        "engine": ENGINE_VERSION,
        "spec": spec.as_dict(),
        "task": _described(task.arguments, task.version, ("title", "group", "paper")),
        "pruner": _described(
            {"group": "unstructured", **pruner.arguments},
            pruner.version,
            ("title", "group", "paper", "exceeds_budget"),
        ),
    }


def _described(arguments: Mapping[str, Any], version: int | str, keys: tuple[str, ...]) -> Any:
    return {**{key: arguments.get(key) for key in keys}, "version": version}


def _nothing(spec: Spec, task: Entry, **known: Any) -> dict[str, Any]:
    """Return the parts of a record that only a run has which came to its end."""
    return {
        "quality": no_quality(task),
        "sparsity": {"requested": spec.sparsity},
        "cost": {},
        "events": [],
        "provenance": {**known, "command": provenance.command(spec)},
    }


def no_quality(task: Entry) -> dict[str, Any]:
    """Return the ``quality`` part of a run that was not tested."""
    return {
        "metric": task.arguments["metric"],
        "goal": task.arguments["goal"],
        "validation": None,
        "test": None,
        "baseline": None,
        "further": {},
    }
