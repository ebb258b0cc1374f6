"""Which costs of two runs can be compared, and why others cannot."""

from __future__ import annotations

from collections.abc import Iterator

from harness.record import COSTS, Provenance, Record

DEPENDS_ON_MACHINE = frozenset(name for name, cost in COSTS.items() if cost.by_device)
"""Costs that are compared only between runs on the same machine."""

OF_WHOLE_RUN = tuple(
    name for name in COSTS if name in DEPENDS_ON_MACHINE and COSTS[name].of == "run"
)
"""Costs to which an observation may contribute."""

OBSERVATIONS = ("kernel",)
"""Conditions that add readings to a run without changing its result; they may change its costs."""


def is_observed(record: Record) -> bool:
    """Return whether a run was observed by an instrument that other runs do without."""
    overrides = record["spec"]["overrides"]
    return any(overrides.get(name, False) not in (False, "off") for name in OBSERVATIONS)


def not_comparable(record: Record) -> dict[str, str]:
    """Return the costs that are missing or are not those of the method alone, each with why."""
    if record["status"] == "diverged":
        return dict.fromkeys(COSTS, "diverged: a run that ended early has no costs to compare")
    cost = record["cost"]
    reasons = dict(cost.get("reasons", {}))
    if is_observed(record) and "instrument_seconds" not in cost:
        why = f"measured with {' and '.join(OBSERVATIONS)}=true, whose own cost it contains"
        reasons |= dict.fromkeys(OF_WHOLE_RUN, why)
    return reasons


def disturbed(record: Record) -> frozenset[str]:
    """Return the costs whose measurement other programs disturbed; they are not ranked."""
    return frozenset(record["cost"].get("disturbed") or ())


def machine(provenance: Provenance) -> str | None:
    """Return a description that is equal for runs whose costs can be compared; None if unknown.

    It names the processor or the GPU, the number of threads, how many runs shared the device, the
    version of torch, and those of torch's settings that differ from the usual ones. It ends with
    the hash in which the provenance summarises these and the host. Older records have no hash.
    """
    if "device" not in provenance:
        return None
    return ", ".join(_parts(provenance))


def _parts(provenance: Provenance) -> Iterator[str]:
    yield provenance["device"]
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
