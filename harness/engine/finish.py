"""Finish a run: test the final network, measure its costs and assemble the record."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from harness.costs.meter import CostMeter
from harness.engine.engine import Engine
from harness.engine.final_costs import Measure
from harness.prunable import weight_sparsity
from harness.pruning.connectivity import effective_masks, emptied_layers
from harness.pruning.receipt import groups_of
from harness.record import Cost, Git, Layer, Provenance, Quality, Record, Sparsity, Status
from harness.results.provenance import command, commit, environment
from harness.results.records import new_record, untested_quality
from harness.signals import Stop
from harness.spec import Plan
from harness.storage.journal import Attempts, Journal
from harness.task import Batch
from harness.training.evaluation import require_number
from harness.training.trainer import Trainer
from harness.units import ClassifiedUnits, Units


@dataclass(frozen=True)
class Finished:
    """A run whose method has ended; its network is still to be tested and measured."""

    plan: Plan
    folder: Path
    """The run's folder, in which the network has been saved."""
    engine: Engine
    """Its trainer holds the final weights."""
    journal: Journal
    meter: CostMeter
    attempts: Attempts
    diverged: str | None
    """Why the training ended early; None if it did not."""


def assemble(finished: Finished, plugins: Sequence[Path], stop: Stop, measure: Measure) -> Record:
    """Test the final weights, once, measure the final network and return the record.

    Args:
        finished: the run.
        plugins: plug-in files that the measuring process needs.
        stop: ends the measurement.
        measure: returns the costs of the final network.

    Raises:
        Interrupted: the process was asked to stop.
    """
    plan, trainer = finished.plan, finished.engine.trainer
    costs = finished.meter.close()
    status: Status = "diverged"
    reason, quality = finished.diverged, untested_quality(plan.task)
    if finished.diverged is None:
        batches = trainer.task.scoring_batches(plan.spec.seed)
        model = trainer.model.eval()
        status, reason = final_status(partial(trainer.task.outputs, model), batches)
    if status != "diverged":
        quality, infinite = _quality(plan, trainer)
        if infinite:
            status, reason = "diverged", infinite
    final = measure(finished.folder, plan, plugins, trainer.task.device, stop)
    events = [entry.event for entry in finished.journal.entries]
    return new_record(
        plan,
        status,
        reason,
        quality=quality,
        sparsity=_sparsity(plan, finished.engine, events),
        cost=_cost(costs, final, trainer),
        events=events,
        provenance=_provenance(finished),
    )


def _cost(costs: Mapping[str, Any], final: Mapping[str, Any], trainer: Trainer) -> Cost:
    """Return the costs of the run and of its final network, which have some keys in common."""
    both = {key: {**costs[key], **final.get(key, {})} for key in ("load", "disturbed", "reasons")}
    trained = {"epochs": trainer.spent / trainer.task.steps_per_epoch, "steps": trainer.spent}
    return cast(Cost, {**costs, **trained, **final, **both})


def _provenance(finished: Finished) -> Provenance:
    attempts = finished.attempts.entries
    return {
        "git": cast(Git, commit()),
        **cast(Provenance, environment(finished.engine.trainer.task.device)),
        "runs_on_device": max(attempt["runs_on_device"] for attempt in attempts),
        "command": command(finished.plan.spec),
        "started": attempts[0]["started"],
        "resumed": attempts[1:],
        "initial_weights_sha256": finished.engine.initial_digest,
    }


def _quality(plan: Plan, trainer: Trainer) -> tuple[Quality, str | None]:
    """Return the metrics; if the test metric is infinite, none of them, and why."""
    metric = plan.task.arguments["metric"]
    validation = trainer.evaluate("validation", metric)
    test = trainer.evaluate("test", metric)
    require_number(trainer.task, validation, metric, "validation")
    require_number(trainer.task, test, metric, "test")
    if math.isinf(test[metric]):
        return untested_quality(plan.task), f"the test {metric} is {test[metric]}"
    quality = untested_quality(plan.task)
    quality["validation"] = _finite(validation[metric])
    quality["test"] = test[metric]
    quality["baseline"] = _finite(trainer.task.baseline())
    quality["further"] = {name: _finite(value) for name, value in test.items() if name != metric}
    return quality, None


def _finite(value: float) -> float | None:
    """Return a number, or None for one that JSON cannot express."""
    return value if math.isfinite(value) else None


def final_status(
    outputs_of: Callable[[Batch], Tensor], batches: Sequence[Batch]
) -> tuple[Status, str | None]:
    """Return whether a trained network is done, has collapsed or has diverged, and why.

    Args:
        outputs_of: the network, in evaluation mode.
        batches: at least two.
    """
    first, second, *_ = batches
    with torch.no_grad():
        outputs = outputs_of(first)
        if len(outputs) == 1:  # a collapse shows only between samples
            outputs = torch.cat([outputs, outputs_of(second)])
    if not outputs.isfinite().all():
        return "diverged", "the outputs are not finite at the end of training"
    if is_collapsed(outputs):
        return "collapsed", "the output no longer depends on the input"
    return "done", None


def is_collapsed(outputs: Tensor) -> bool:
    """Return whether the output no longer depends on the input: all samples have the same output.

    Outputs count as the same if they differ by at most 8 units of rounding of the largest output
    (about 1e-6 in single precision), because a batched product may sum rows in different orders.
    Outputs that are not finite are not collapsed but diverged, so the answer is False.

    Args:
        outputs: of shape (samples, ...), for at least two different samples.

    Raises:
        ValueError: there are fewer than two samples.
    """
    if len(outputs) < 2:
        raise ValueError("collapse shows only between samples: at least two are needed")
    rows = outputs.detach().flatten(1).double()
    if not rows.isfinite().all():
        return False
    spread = rows.amax(0) - rows.amin(0)
    return bool(spread.max() <= 8 * torch.finfo(outputs.dtype).eps * rows.abs().max())


def _sparsity(plan: Plan, engine: Engine, events: Sequence[Mapping[str, Any]]) -> Sparsity:
    counts, trainer = engine.layers(), engine.trainer
    masks = trainer.masks()
    effective = effective_masks(trainer.task.flow, trainer.model, masks)
    working = sum(int(mask.sum()) for mask in effective.values())
    budget = engine.budgeting.reached(trainer.units)
    requested, pattern = engine.budgeting.requested(events)
    return {
        "requested": requested,
        **({} if budget is None else {"budget": budget}),
        **({} if pattern is None else {"pattern": pattern}),
        "weights": weight_sparsity(counts),
        "nodes": next((n for u in trainer.units.values() if (n := u.nodes()) is not None), None),
        "effective": 1 - working / sum(layer["weights"] for layer in counts),
        **(
            {}
            if plan.conditions.kernels == "dense"
            else {"sparse_kernels": _on_sparse_kernels(events)}
        ),
        "emptied_layers": emptied_layers(masks),
        "per_layer": cast(list[Layer], counts),
        **_per_group(trainer.units.values()),
    }


def _per_group(units: Iterable[Units]) -> Sparsity:
    """Return the groups of coupled channels, if there are units that consist of them."""
    groups = [
        group for each in units if isinstance(each, ClassifiedUnits) for group in groups_of(each)
    ]
    return {"per_group": groups} if groups else {}


def _on_sparse_kernels(events: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return the layers on sparse kernels at the end, each with the event since which."""
    since: dict[str, int] = {}
    for number, event in enumerate(events):
        if event["verb"] == "release":
            since = {}
        elif "sparse_kernels" in event:
            layers = event["sparse_kernels"]["layers"]
            since = {name: since.get(name, number) for name in layers}
    return since
