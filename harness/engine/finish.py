"""The end of a run: test its network, measure it, and assemble the record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness.costs.meter import CostMeter
from harness.engine.engine import Engine
from harness.engine.final_costs import final_costs
from harness.prunable import weight_sparsity
from harness.pruning.connectivity import effective_masks, emptied_layers, is_collapsed
from harness.results import provenance
from harness.results.head import head, no_quality
from harness.signals import Stop
from harness.spec import Plan
from harness.storage.journal import Attempts, Journal
from harness.training.evaluation import evaluate, require_number
from harness.training.trainer import Trainer


@dataclass(frozen=True)
class Finished:
    """A run whose method has ended, before it is tested and measured."""

    plan: Plan
    folder: Path
    """The run's folder; the network is saved there already."""
    engine: Engine
    """Its trainer holds the last weights."""
    journal: Journal
    meter: CostMeter
    attempts: Attempts
    diverged: str | None
    """Why training ended early; None if it did not."""


def assemble(finished: Finished, plugins: Sequence[Path], stop: Stop) -> dict[str, Any]:
    """Test the last weights, once, measure the final network, and return the record.

    Args:
        finished: the run.
        plugins: plug-in files that the measuring process needs.
        stop: ends the measurement.

    Raises:
        Interrupted: the process was asked to stop.
    """
    plan, trainer, attempts = finished.plan, finished.engine.trainer, finished.attempts
    device = trainer.task.device
    costs = finished.meter.close()
    status, reason, quality = "diverged", finished.diverged, no_quality(plan.task)
    if finished.diverged is None:
        status, reason = _status(plan, trainer)
    if status != "diverged":
        quality, infinite = _quality(plan, trainer)
        if infinite:
            status, reason = "diverged", infinite
    final = final_costs(finished.folder, plan, plugins, device, stop)
    return {
        **head(plan, status, reason),
        "quality": quality,
        "sparsity": _sparsity(plan, finished.engine),
        "cost": {
            **costs,
            "epochs": trainer.spent / trainer.task.steps_per_epoch,
            "steps": trainer.spent,
            **final,
            **{
                key: {**costs[key], **final.get(key, {})}
                for key in ("load", "disturbed", "reasons")
            },
        },
        "events": [entry.event for entry in finished.journal.entries],
        "provenance": {
            "git": provenance.commit(),
            **provenance.environment(device),
            "runs_on_device": max(attempt["runs_on_device"] for attempt in attempts.entries),
            "command": provenance.command(plan.spec),
            "started": attempts.entries[0]["started"],
            "resumed": attempts.entries[1:],
            "initial_weights_sha256": finished.engine.initial_digest,
        },
    }


def _quality(plan: Plan, trainer: Trainer) -> tuple[dict[str, Any], str | None]:
    """Return the metrics, and the reason why there are none if the main one is infinite."""
    metric = plan.task.arguments["metric"]
    validation = evaluate(trainer.task, trainer.model, "validation", metric)
    test = evaluate(trainer.task, trainer.model, "test", metric)
    require_number(trainer.task, validation, metric, "validation")
    require_number(trainer.task, test, metric, "test")
    if math.isinf(test[metric]):
        return no_quality(plan.task), f"the test {metric} is {test[metric]}"
    further = {name: _finite(value) for name, value in test.items() if name != metric}
    return {
        **no_quality(plan.task),
        "validation": _finite(validation[metric]),
        "test": test[metric],
        "baseline": _finite(trainer.task.baseline()),
        "further": further,
    }, None


def _finite(value: float) -> float | None:
    """Return a number that JSON can represent, or None."""
    return value if math.isfinite(value) else None


def _status(plan: Plan, trainer: Trainer) -> tuple[str, str | None]:
    task, model = trainer.task, trainer.model.eval()
    first, second, *_ = task.scoring_batches(plan.spec.seed)
    with torch.no_grad():
        outputs = task.outputs(model, first)
        if len(outputs) == 1:  # collapse shows only between samples
            outputs = torch.cat([outputs, task.outputs(model, second)])
    if not outputs.isfinite().all():
        return "diverged", "the outputs are not finite at the end of training"
    if is_collapsed(outputs):
        return "collapsed", "the output no longer depends on the input"
    return "done", None


def _sparsity(plan: Plan, engine: Engine) -> dict[str, Any]:
    counts, trainer = engine.layers(), engine.trainer
    masks = trainer.masks()
    effective = effective_masks(trainer.task.flow, trainer.model, masks)
    working = sum(int(mask.sum()) for mask in effective.values())
    return {
        "requested": plan.spec.sparsity,
        "weights": weight_sparsity(counts),
        "nodes": next((n for u in trainer.units.values() if (n := u.nodes()) is not None), None),
        "effective": 1 - working / sum(layer["weights"] for layer in counts),
        "emptied_layers": emptied_layers(masks),
        "per_layer": counts,
    }
