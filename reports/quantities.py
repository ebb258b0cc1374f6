"""What a run is measured by: names, units, and how each number was had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Origin = Literal["measured", "theoretical"]


@dataclass(frozen=True)
class Quantity:
    """A column of the results.

    Attributes:
        label: what it is called.
        unit: of the values shown.
        scale: from the record's unit to the unit shown.
        origin: a theoretical one is counted or computed, and no clock or meter shows it.
    """

    label: str
    unit: str = ""
    scale: float = 1.0
    origin: Origin = "measured"

    @property
    def title(self) -> str:
        """The label with its unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


COSTS: Mapping[str, Quantity] = {
    "train_seconds": Quantity("Training time", "s"),
    "epochs": Quantity("Epochs"),
    "step_ms": Quantity("Training step", "ms"),
    "inference_ms": Quantity("Inference of a batch", "ms"),
    "peak_run_bytes": Quantity("Peak memory of the run", "MB", 1e-6),
    "peak_step_bytes": Quantity("Peak memory of a step", "MB", 1e-6),
    "disk_bytes": Quantity("Size on disk", "MB", 1e-6),
    "energy_kwh": Quantity("Energy", "Wh", 1e3),
    "emissions_g": Quantity("Emissions", "g CO2e"),
    "macs": Quantity("Multiply-accumulates carried out", "M", 1e-6, "theoretical"),
    "macs_effective": Quantity("Multiply-accumulates of weights left", "M", 1e-6, "theoretical"),
    "parameters": Quantity("Parameters in memory", "k", 1e-3, "theoretical"),
    "paper_disk": Quantity("Disk by the talk's formula", "MB", 1.0, "theoretical"),
    "current_allocation": Quantity("Current allocation, as in the talk", "MB", 1.0, "theoretical"),
}
"""Less is better for all of them."""

SPARSITY: Mapping[str, Quantity] = {
    "weight_sparsity": Quantity("Weight sparsity", "%", 100, "theoretical"),
    "compression": Quantity("Compression: weights before / after", "x", 1.0, "theoretical"),
    "node_sparsity": Quantity("Node sparsity", "%", 100, "theoretical"),
    "effective_sparsity": Quantity("Weights without effect", "%", 100, "theoretical"),
}

ENERGY = ("energy_kwh", "emissions_g")
"""Never ranked where they are only estimated."""

QUANTITIES: Mapping[str, Quantity] = {**COSTS, **SPARSITY}
