"""New records: the head that all have, and whole records of runs without a result.

Torch is not imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from harness.conditions import Conditions
from harness.record import (
    SCHEMA,
    Cost,
    Data,
    Git,
    Provenance,
    Pruner,
    Quality,
    Record,
    Sparsity,
    Status,
    Task,
)
from harness.record import Spec as SpecPart
from harness.record import TrainedNetwork as NetworkPart
from harness.registry import Entry
from harness.results.provenance import command, commit
from harness.settings import as_text
from harness.spec import ENGINE_VERSION, Plan, Spec
from harness.trained_network import TrainedNetwork


def new_record(
    plan: Plan,
    status: Status,
    reason: str | None,
    *,
    quality: Quality | None = None,
    sparsity: Sparsity | None = None,
    cost: Cost | None = None,
    events: list[dict[str, Any]] | None = None,
    provenance: Provenance | None = None,
) -> Record:
    """Return the record of a plan; what is left out is empty, as in a run without a result.

    Args:
        plan: what was run, or was to be run.
        status: how it ended.
        reason: why.
        quality: metrics of the final network.
        sparsity: what was removed.
        cost: what it cost.
        events: what the method did.
        provenance: where and with what it was carried out.
    """
    settings = {**plan.settings, **plan.options, **plan.conditions}
    return {
        "schema": SCHEMA,
        "run_id": plan.run_id,
        "status": status,
        "reason": reason,
        "engine": ENGINE_VERSION,
        "spec": cast(SpecPart, plan.spec.as_dict()),
        "task": _task(plan.task, plan.references),
        "pruner": _pruner(plan.pruner),
        "data": cast(Data, plan.data.as_dict()),
        "start": _network(plan.start),
        "teacher": _network(plan.teacher),
        # The spec's overrides come last because they name no folder of this machine.
        "settings": {**settings, **plan.spec.overrides},
        "quality": quality or untested_quality(plan.task),
        "sparsity": sparsity or {"requested": plan.spec.sparsity},
        "cost": cost or {},
        "events": cast(Any, events or []),
        "provenance": provenance or {"command": command(plan.spec)},
    }


def record_without_result(plan: Plan, status: Status, reason: str) -> Record:
    """Return the record of a run that was tried and has no result: it failed or was skipped."""
    provenance: Provenance = {"git": cast(Git, commit()), "command": command(plan.spec)}
    return new_record(plan, status, reason, provenance=provenance)


def pending_record(plan: Plan) -> Record:
    """Return the placeholder of a run that a matrix asks for and that has no record yet."""
    return new_record(plan, "missing", None)


def unplanned_record(spec: Spec, task: Entry, pruner: Entry, status: Status, reason: str) -> Record:
    """Return the placeholder of a run that cannot be planned, e.g. because its data are missing.

    Args:
        spec: the request.
        task: the task that it names.
        pruner: the method that it names.
        status: "skipped", or "failed" if something cannot be imported.
        reason: why it cannot be planned.
    """
    changed = [f"{name}={as_text(value)}" for name, value in spec.overrides.items()]
    return {
        "schema": SCHEMA,
        "run_id": "-".join([spec.name, spec.profile, *changed]),
        "status": status,
        "reason": reason,
        "engine": ENGINE_VERSION,
        "spec": cast(SpecPart, spec.as_dict()),
        "task": _task(task),
        "pruner": _pruner(pruner),
        "data": {"source": None, "name": None, "sha256": None, "stands_in_for": None},
        "settings": {**task.arguments["settings"], **pruner.options, **Conditions()},
        "quality": untested_quality(task),
        "sparsity": {"requested": spec.sparsity},
        "cost": {},
        "events": [],
        "provenance": {"command": command(spec)},
    }


def untested_quality(task: Entry) -> Quality:
    """Return the ``quality`` of a run whose network was not tested."""
    return {
        "metric": task.arguments["metric"],
        "goal": task.arguments["goal"],
        "validation": None,
        "test": None,
        "baseline": None,
        "further": {},
    }


def _network(network: TrainedNetwork | None) -> NetworkPart | None:
    return None if network is None else cast(NetworkPart, network.as_dict())


def _task(task: Entry, references: Mapping[str, str] | None = None) -> Task:
    part: Task = {
        "title": task.arguments.get("title"),
        "group": task.arguments.get("group"),
        "paper": task.arguments.get("paper"),
        "version": task.version,
    }
    if references:
        part["references"] = dict(references)
    return part


def _pruner(pruner: Entry) -> Pruner:
    return {
        "title": pruner.arguments.get("title"),
        "group": pruner.arguments.get("group", "unstructured"),
        "paper": pruner.arguments.get("paper"),
        "exceeds_budget": pruner.arguments.get("exceeds_budget"),
        "version": pruner.version,
    }
