"""The quantities by which a report compares runs: those of a record, and some computed from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from harness import record as records
from harness.record import Event, GradientFlow, Kernel, Layer, Number, Record, Sparsity


@dataclass(frozen=True)
class Quantity:
    """A quantity as tables and figures show it.

    Attributes:
        label: its name.
        unit: of the values shown.
        scale: factor from the record's unit to the unit shown.
        theoretical: whether it is counted or computed, so no clock or meter shows it.
    """

    label: str
    unit: str = ""
    scale: float = 1.0
    theoretical: bool = False

    @property
    def title(self) -> str:
        """The label with its unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


_SHOWN: Mapping[str, tuple[str, float]] = {
    "bytes": ("MB", 1e-6),
    "kWh": ("Wh", 1e3),
    "g": ("g CO2e", 1.0),
    "operations": ("M", 1e-6),
    "parameters": ("k", 1e-3),
}
"""The unit that is shown for a unit of the record, with the factor between them."""


def _of_record(quantity: records.Quantity) -> Quantity:
    unit, scale = _SHOWN.get(quantity.unit, (quantity.unit, 1.0))
    if quantity.unit == "operations" and quantity.of == "run":
        unit, scale = "G", 1e-9
    return Quantity(quantity.label, unit, scale, quantity.counted)


PAPER_ONLY: Mapping[str, Quantity] = {
    "paper_disk": Quantity("Size on disk by the paper's formula", "MB", theoretical=True),
    "current_allocation": Quantity("Current allocation, as in the paper", "MB", theoretical=True),
}
"""Costs that are shown next to the paper's numbers, and nowhere else."""

OWN_COSTS: Mapping[str, Quantity] = {name: _of_record(cost) for name, cost in records.COSTS.items()}
"""The costs of a record."""

COSTS: Mapping[str, Quantity] = {**OWN_COSTS, **PAPER_ONLY}
"""Quantities of which less is better."""

IN_RECORD: Mapping[str, str] = {
    "weight_sparsity": "weights",
    "node_sparsity": "nodes",
    "effective_sparsity": "effective",
}
"""Sparsities, each with its key in a record."""

_LABELS = {name: each.label for name, each in records.quantities(Sparsity).items()}

SPARSITY: Mapping[str, Quantity] = {
    **{name: Quantity(_LABELS[key], "%", 100, theoretical=True) for name, key in IN_RECORD.items()},
    "compression": Quantity("Compression: weights before / after", "x", theoretical=True),
}

BUDGET: Mapping[str, Quantity] = {
    "budget_asked": Quantity("Budget, of dense", "%", 100, theoretical=True),
    "budget_reached": Quantity("Cost reached, of dense", "%", 100, theoretical=True),
}
"""The budget of runs that have one, and what it limits in the final network."""

ENERGY = tuple(name for name, cost in records.COSTS.items() if cost.unit in ("kWh", "g"))
"""Not ranked if they are only estimated."""

QUANTITIES: Mapping[str, Quantity] = {**COSTS, **SPARSITY, **BUDGET}

READINGS = (
    "kernel_change",
    "kernel_alignment",
    "kernel_drift_at_trigger",
    "kernel_alignment_at_trigger",
)
"""Quantities that only observed runs have."""


def quantities_of(record: Record) -> dict[str, Number | None]:
    """Return all quantities of a run, also those of which it does not matter which are less.

    These are `QUANTITIES`, `READINGS` and ``gradient_flow_change``.
    """
    cost = cast(Mapping[str, Number | None], record["cost"])
    sparsity = cast(Mapping[str, Number | None], record["sparsity"])
    budget = record["sparsity"].get("budget")
    found = {
        **{name: cost.get(name) for name in OWN_COSTS},
        **{name: sparsity.get(key) for name, key in IN_RECORD.items()},
        "compression": _compression(record["sparsity"].get("weights")),
        "budget_asked": None if budget is None else budget["asked"],
        "budget_reached": None if budget is None else budget["reached"],
        **dict.fromkeys(PAPER_ONLY),
        **_changes(record),
    }
    layers, parameters = record["sparsity"].get("per_layer"), record["cost"].get("parameters")
    if layers and parameters is not None:
        found["paper_disk"] = paper_disk(layers)
        found["current_allocation"] = current_allocation(layers, parameters)
    return found


def _compression(removed: Number | None) -> float | None:
    return None if removed is None or removed >= 1 else 1 / (1 - removed)


def paper_disk(layers: Sequence[Layer]) -> float:
    """Return the size on disk by the formula of the paper's code, in its "MB".

    A weight matrix of m rows and n columns takes 34 for each remaining entry, and 2 (min(m, n) + 1)
    in addition: bits, not bytes. Normalisation layers are left out here.
    """
    total = 0
    for layer in layers:
        rows, *rest = (*layer["shape"], 1)
        total += 34 * layer["kept"] + 2 * (min(rows, math.prod(rest)) + 1)
    return total / 1e6


def current_allocation(layers: Sequence[Layer], parameters: Number) -> float:
    """Return the memory in MB that is allocated between two training steps.

    It holds weights, gradients, two moments of Adam and the mask, and a copy of masked weights, in
    4 bytes each.
    """
    masked = any(layer["kept"] < math.prod(layer["shape"]) for layer in layers)
    return parameters * 4 * (6 if masked else 5) / 1e6


def _changes(record: Record) -> dict[str, Number | None]:
    """Return how much the first pruning and the epoch of the trigger changed the network."""
    first = next(prunings(record), None)
    pruning, epoch = _pruning_with_kernel(record), _epoch_of_trigger(record)
    kernel = pruning["kernel"] if pruning else Kernel()
    return {
        "gradient_flow_change": _relative_change(first.get("gradient_flow") if first else None),
        "kernel_change": kernel.get("change", _change_from_the_first(pruning)),
        "kernel_alignment": kernel.get("alignment"),
        "kernel_drift_at_trigger": epoch.get("drift"),
        "kernel_alignment_at_trigger": epoch.get("alignment"),
    }


def prunings(record: Record) -> Iterator[Event]:
    """Iterate over the prunings of a run, without the small steps of a gradual one."""
    prunings = (event for event in record["events"] if event["verb"] == "prune")
    return (event for event in prunings if event.get("measured", True))


def epochs(steps: Number, record: Record) -> float:
    """Return a number of steps in epochs."""
    cost = record["cost"]
    return float(steps * cost["epochs"] / cost["steps"]) if cost.get("steps") else 0.0


def trigger_readings(record: Record) -> dict[str, dict[float, Number | None]]:
    """Return what each observed trigger read, by its name and the epochs spent.

    The tangent kernel counts as a trigger; its reading is how much an epoch changed it.
    """
    found: dict[str, dict[float, Number | None]] = {}
    for epoch in (epoch for event in record["events"] for epoch in event.get("epochs", ())):
        read = dict(epoch.get("observed", {}))
        if "kernel" in epoch:
            read["kernel"] = epoch["kernel"].get("epoch_change")
        for name, value in read.items():
            found.setdefault(name, {})[epochs(epoch["spent"], record)] = value
    return found


def _relative_change(flow: GradientFlow | None) -> float | None:
    if not flow or not flow["before"] or flow["after"] is None:
        return None
    return abs(flow["after"] - flow["before"]) / flow["before"]


def _pruning_with_kernel(record: Record) -> Event | None:
    """Return the first pruning, if the kernel was measured there."""
    first = next(prunings(record), None)
    return first if first and first.get("kernel") else None


def _change_from_the_first(pruning: Event | None) -> Number | None:
    """Return the change of the kernel in an old record, which has distances to the first one only.

    At the start of training these are the distance that the pruning makes.
    """
    if pruning is None or pruning["spent"]:
        return None
    after = pruning["kernel"].get("after")
    change: Number | None = after.get("change") if isinstance(after, Mapping) else None
    return change


def _epoch_of_trigger(record: Record) -> Kernel:
    """Return what was read of the kernel in the epoch in which the first trigger fired."""
    for event in record["events"]:
        if event["verb"] == "train" and event["ended_by"] == "trigger" and event["epochs"]:
            return event["epochs"][-1].get("kernel") or Kernel()
    return Kernel()


def missing_readings(record: Record) -> dict[str, str]:
    """Return why an observed run lacks a reading, by quantity."""
    why = "the record has distances to the first kernel only"
    reasons = {}
    pruning, epoch = _pruning_with_kernel(record), _epoch_of_trigger(record)
    if pruning and "change" not in pruning["kernel"] and pruning["spent"]:
        reasons["kernel_change"] = why
    if epoch and "drift" not in epoch:
        reasons["kernel_drift_at_trigger"] = why
    return reasons
