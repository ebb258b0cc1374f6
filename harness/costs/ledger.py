"""The costs of a run as it goes on, over all the lives of a run that was interrupted."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from harness.costs.energy import EnergyMeter
from harness.costs.measured import Measured
from harness.costs.memory import PeakMemory


class Ledger:
    """Time and energy of a run add up over its lives; of its memory the highest peak counts.

    What a killed process did after its last checkpoint is lost to it, and is done again. Energy
    is that of the whole program, validation included; time is the method's own, training and
    scoring.

    Args:
        device: where the run computes.
        measure_energy: looking for the counters takes two seconds, which a smoke run is spared.
    """

    def __init__(self, device: torch.device, measure_energy: bool) -> None:
        self._energy = EnergyMeter(device) if measure_energy else None
        self._memory = PeakMemory(device)
        self._seconds = 0.0
        self._earlier_peak = 0
        if self._energy is not None:
            self._energy.start()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time of a context as the method's own."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._seconds += time.perf_counter() - began

    def state(self) -> dict[str, Any]:
        """Return what is needed to go on counting in another process."""
        return {
            "seconds": self._seconds,
            "peak": self._peak().value,
            "energy": None if self._energy is None else self._energy.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Add what earlier processes have counted."""
        self._seconds += state["seconds"]
        self._earlier_peak = state["peak"] or 0
        if self._energy is not None:
            self._energy.restore(state["energy"])

    def close(self) -> dict[str, Any]:
        """Stop measuring and return the run's part of the record's costs."""
        peak = self._peak()
        costs: dict[str, Any] = {"train_seconds": self._seconds, "peak_run_bytes": peak.value}
        reasons = {"peak_run_bytes": peak.reason}
        if self._energy is None:
            reason = "energy is not measured in the smoke profile"
            costs |= {"energy_kwh": None, "emissions_g": None, "energy_method": None}
            reasons |= {"energy_kwh": reason, "emissions_g": reason}
        else:
            energy = self._energy.read()
            self._energy.stop()
            costs |= {
                "energy_kwh": energy.kilowatt_hours.value,
                "emissions_g": energy.emissions_g.value,
                "energy_method": energy.method,
                "energy_scope": energy.scope,
                "carbon_intensity_g_per_kwh": energy.carbon_intensity,
            }
            reasons |= {
                "energy_kwh": energy.kilowatt_hours.reason,
                "emissions_g": energy.emissions_g.reason,
            }
        return {**costs, "reasons": {name: why for name, why in reasons.items() if why}}

    def _peak(self) -> Measured:
        peak = self._memory.peak()
        if peak.value is None:
            return peak
        return Measured(max(int(peak.value), self._earlier_peak))
