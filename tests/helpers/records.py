"""A record for the tests of what reads records."""

from __future__ import annotations

import copy
from typing import Any

RECORD: dict[str, Any] = {
    "schema": 1,
    "run_id": "digits-earlycrop_u-0.98-seed0-0123456789ab",
    "status": "done",
    "reason": None,
    "spec": {
        "task": "digits",
        "pruner": "earlycrop_u",
        "sparsity": 0.98,
        "seed": 0,
        "profile": "embedded",
        "overrides": {},
        "plugins": [],
    },
    "task": {"title": "Digits", "group": None, "paper": None, "version": 1},
    "pruner": {
        "title": "EarlyCroP-U",
        "group": "unstructured",
        "paper": None,
        "exceeds_budget": None,
        "version": 1,
    },
    "data": {"source": "real", "name": "scikit-learn digits", "sha256": "a" * 64},
    "settings": {"epochs": 4, "width": 32},
    "quality": {
        "metric": "accuracy",
        "goal": "max",
        "validation": 96.5,
        "test": 97.25,
        "baseline": 10.01,
        "further": {},
    },
    "sparsity": {
        "requested": 0.98,
        "weights": 0.98,
        "nodes": None,
        "effective": 0.985,
        "emptied_layers": [],
        "per_layer": [
            {"name": "first.weight", "shape": [10, 100], "weights": 1000, "kept": 40},
            {"name": "second.weight", "shape": [10, 100], "weights": 1000, "kept": 0},
        ],
    },
    "cost": {
        "train_seconds": 12.5,
        "peak_run_bytes": 50_000_000,
        "energy_kwh": 0.0015,
        "emissions_g": 0.5,
        "energy_method": "measured nvml",
        "energy_scope": "the run's GPU",
        "epochs": 4.0,
        "steps": 40,
        "step_ms": 20.0,
        "inference_ms": 5.0,
        "peak_step_bytes": 25_000_000,
        "disk_bytes": 8_500,
        "macs": 123_456,
        "macs_effective": 1_234,
        "parameters": 2_010,
        "reasons": {},
    },
    "events": [
        {
            "verb": "train",
            "position": 10,
            "spent": 10,
            "ended_by": "trigger",
            "epochs": [
                {
                    "position": 10,
                    "spent": 10,
                    "loss": 1.5,
                    "validation": {"accuracy": 80.0},
                    "trigger": 0.015,
                }
            ],
        },
        {
            "verb": "prune",
            "position": 10,
            "spent": 10,
            "units": "weights",
            "target": 0.98,
            "gradient_flow": {"before": 2.0, "after": 1.25},
        },
        {
            "verb": "train",
            "position": 40,
            "spent": 40,
            "ended_by": "plan",
            "epochs": [
                {
                    "position": steps,
                    "spent": steps,
                    "loss": 0.5,
                    "validation": {"accuracy": accuracy},
                }
                for steps, accuracy in ((20, 90.0), (30, 95.0), (40, 96.5))
            ],
        },
    ],
    "provenance": {"device": "Abacus 1", "threads": 2, "runs_on_device": 1, "resumed": []},
}


def record(**changes: Any) -> dict[str, Any]:
    """Return the record with changes: ``cost__macs=1`` changes the ``macs`` of its ``cost``."""
    changed = copy.deepcopy(RECORD)
    for path, value in changes.items():
        *parts, last = path.split("__")
        inner = changed
        for part in parts:
            inner = inner[part]
        inner[last] = value
    return changed
