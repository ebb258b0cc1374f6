"""Which costs of two runs can be compared, and why others cannot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.storage.store import Record

DEPENDS_ON_MACHINE = frozenset(
    {
        *("train_seconds", "step_ms", "inference_ms"),
        *("peak_run_bytes", "peak_step_bytes"),
        *("energy_kwh", "emissions_g"),
    }
)
"""Costs that are compared only between runs of the same machine."""

FIRST_ENGINE = 1
"""The engine of records that do not say which they are of."""

COSTS = DEPENDS_ON_MACHINE | {"epochs", "disk_bytes", "macs", "macs_effective", "parameters"}

OF_WHOLE_RUN = ("train_seconds", "peak_run_bytes", "energy_kwh", "emissions_g")
"""Costs that may contain what an observation costs."""

OBSERVATIONS = ("kernel",)
"""Conditions that add readings to a run and do not change its result, though they may its costs."""


def is_observed(record: Record) -> bool:
    """Return whether a run carried an instrument that others do not."""
    overrides = record["spec"]["overrides"]
    return any(overrides.get(name, False) not in (False, "off") for name in OBSERVATIONS)


def not_comparable(record: Record) -> dict[str, str]:
    """Return why costs of a record are missing, or are not those of its method, by cost."""
    cost: Mapping[str, Any] = record["cost"]
    if record["status"] == "diverged":
        return dict.fromkeys(COSTS, "diverged: a run that ended early has no costs to compare")
    reasons = dict(cost.get("reasons", {}))
    if is_observed(record) and "instrument_seconds" not in cost:
        why = f"measured with {' and '.join(OBSERVATIONS)}=true, whose own cost it contains"
        reasons |= dict.fromkeys(OF_WHOLE_RUN, why)
    return reasons


def disturbed(record: Record) -> frozenset[str]:
    """Return the costs whose measurement other work on the machine disturbed: they rank nothing."""
    return frozenset(record["cost"].get("disturbed") or ())


def machine(provenance: Mapping[str, Any]) -> str | None:
    """Return what runs have in common whose costs can be compared; None if it is not known.

    That is the processor or the GPU, the number of threads, how many runs shared the device, the
    version of torch, and those of its settings that differ from the usual ones; last comes the hash
    in which the provenance sums up these and the host. Older records have none.
    """
    if "device" not in provenance:
        return None
    return ", ".join(_parts(provenance))


def _parts(provenance: Mapping[str, Any]) -> Iterator[str]:
    yield str(provenance["device"])
    threads = provenance["threads"]
    yield f"{threads} thread{'s' * (threads != 1)}"
    together = provenance.get("runs_on_device", 1)
    if together > 1:
        yield f"shared by {together} runs"
    versions = provenance.get("versions") or {}
    if versions.get("torch"):
        yield f"torch {versions['torch']}"
    if versions.get("cuda"):
        yield f"CUDA {versions['cuda']}"
    deterministic = provenance.get("deterministic") or {}
    if provenance.get("device_kind") == "cuda" and deterministic.get("cudnn_deterministic"):
        yield "deterministic algorithms"
    if provenance.get("device_kind") == "cuda" and deterministic.get("cudnn_benchmark"):
        yield "algorithms chosen by speed"
    if not provenance.get("denormals_flushed", True):
        yield "denormal numbers kept"
    if provenance.get("machine"):
        yield f"machine {provenance['machine']}"
