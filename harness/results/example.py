"""An example of a record, for the documentation, for tests and for measuring speed."""

from __future__ import annotations

import copy
from typing import Any, cast

from harness.record import SCHEMA, Record
from harness.spec import ENGINE_VERSION

EXAMPLE: Record = {
    "schema": SCHEMA,
    "run_id": "digits-earlycrop_u-0.98-seed0-0123456789ab",
    "status": "done",
    "reason": None,
    "engine": ENGINE_VERSION,
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
        "paper": "arXiv:2206.10451",
        "exceeds_budget": None,
        "version": 1,
    },
    "data": {
        "source": "real",
        "name": "scikit-learn digits",
        "sha256": "a" * 64,
        "stands_in_for": None,
    },
    "start": None,
    "teacher": None,
    "settings": {"epochs": 4, "width": 32, "kernel": False},
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
            {
                "name": "first.weight",
                "dense_shape": [10, 100],
                "shape": [10, 100],
                "weights": 1000,
                "kept": 40,
            },
            {
                "name": "second.weight",
                "dense_shape": [10, 100],
                "shape": [10, 100],
                "weights": 1000,
                "kept": 0,
            },
        ],
    },
    "cost": {
        "train_seconds": 12.5,
        "train_cpu_seconds": 12.0,
        "train_macs": 98_765_432,
        "peak_run_bytes": 50_000_000,
        "scoring_seconds": 0.75,
        "scoring_passes": 25,
        "peak_scoring_bytes": 5_000_000,
        "instrument_seconds": 1.5,
        "peak_run_bytes_with_instruments": 52_000_000,
        "load": {"train_seconds": {"before": 0.0, "during": 0.1}},
        "disturbed": {},
        "energy_kwh": 0.0015,
        "emissions_g": 0.5,
        "energy_method": "measured nvml",
        "energy_scope": "the run's GPU",
        "carbon_intensity_g_per_kwh": 333.0,
        "reasons": {},
        "epochs": 4.0,
        "steps": 40,
        "step_ms": 20.0,
        "step_ms_iqr": 0.5,
        "step_cpu_ms": 19.5,
        "step_sparse_ms": None,
        "step_sparse_layers": [],
        "inference_ms": 5.0,
        "inference_ms_iqr": 0.25,
        "inference_cpu_ms": 4.75,
        "peak_step_bytes": 25_000_000,
        "peak_step_method": "allocator",
        "peak_inference_bytes": 10_000_000,
        "inference_sparse_ms": None,
        "sparse_layers": [],
        "disk_bytes": 8_500,
        "macs": 123_456,
        "macs_effective": 1_234,
        "macs_dense": 123_456,
        "parameters": 2_010,
        "by_length": {
            "20": {
                "inference_ms": 1.5,
                "inference_ms_iqr": 0.125,
                "inference_cpu_ms": 1.25,
                "peak_inference_bytes": 4_000_000,
                "macs": 30_864,
            }
        },
        "measured_in": "a process of its own",
    },
    "events": [
        {
            "position": 10,
            "spent": 10,
            "verb": "train",
            "epochs": [
                {
                    "position": 10,
                    "spent": 10,
                    "loss": 1.5,
                    "validation": {"accuracy": 80.0},
                    "trigger": 0.015,
                }
            ],
            "ended_by": "trigger",
        },
        {
            "position": 10,
            "spent": 10,
            "verb": "prune",
            "units": "weights",
            "target": 0.98,
            "sparsity": 0.98,
            "gradient_flow": {"before": 2.0, "after": 1.25},
        },
        {
            "position": 40,
            "spent": 40,
            "verb": "train",
            "epochs": [
                {"position": 20, "spent": 20, "loss": 0.5, "validation": {"accuracy": 90.0}},
                {"position": 30, "spent": 30, "loss": 0.5, "validation": {"accuracy": 95.0}},
                {"position": 40, "spent": 40, "loss": 0.5, "validation": {"accuracy": 96.5}},
            ],
            "ended_by": "plan",
        },
    ],
    "provenance": {
        "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
        "device": "Abacus 1",
        "device_kind": "cpu",
        "host": "ba9876543210",
        "processors": 2,
        "threads": 2,
        "denormals_flushed": True,
        "deterministic": {"cudnn_deterministic": False, "cudnn_benchmark": False},
        "settings": {"torch": "2.14.1"},
        "system": "Linux x86_64",
        "machine": "a1b2c3d4e5f6",
        "versions": {"python": "3.11.7", "torch": "2.14.1", "cuda": None},
        "runs_on_device": 1,
        "command": "python -m harness run --task digits --pruner earlycrop_u",
        "started": "2026-01-01T00:00:00+00:00",
        "resumed": [],
        "initial_weights_sha256": "b" * 64,
    },
}
"""The record of a run that is done. Its numbers are made up."""


def example(**changes: Any) -> Record:
    """Return the example with changes, as `changed` takes them."""
    return changed(EXAMPLE, **changes)


def changed(record: Record, **changes: Any) -> Record:
    """Return a copy of a record with changes; it is not checked.

    Args:
        record: the record.
        changes: new values by their place, in which two underscores stand for a dot:
            ``cost__macs=1`` sets the ``macs`` of its ``cost``.
    """
    made = cast(dict[str, Any], copy.deepcopy(record))
    for place, value in changes.items():
        *parts, last = place.split("__")
        inner = made
        for part in parts:
            inner = inner[part]
        inner[last] = value
    return cast(Record, made)
