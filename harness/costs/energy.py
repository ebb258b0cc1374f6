"""Energy and emissions of a run, measured if the machine has counters.

A run on a GPU reads the GPU's counter (NVML), and the processors' counter (RAPL) if it may. A run
on a CPU reads RAPL. Without RAPL, codecarbon estimates the energy from the load and the size of
the machine, which is little more than a constant times the duration. The result says which method
was used: an estimate must never rank anything. Nothing is looked up online, and nothing written.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from codecarbon import OfflineEmissionsTracker
from codecarbon.core.cpu import is_rapl_available

from harness.costs.memory import Measured

WORLD_AVERAGE = 475.0
"""Grams of CO2 equivalent per kilowatt-hour (IEA, Global Energy & CO2 Status Report 2019).

Emissions are energy times this constant, wherever the machine is.
"""

_SHORTEST_SECONDS = 1.0
_JOULES_PER_KILOWATT_HOUR = 3.6e6


@dataclass(frozen=True)
class Energy:
    """Energy used so far, and how it was measured."""

    kilowatt_hours: Measured
    emissions_g: Measured
    """Grams of CO2 equivalent."""
    method: str
    """``measured nvml``, ``measured rapl``, ``estimated cpu_load``; joined by `` + ``."""
    scope: str
    """The hardware whose energy it is; other work on that hardware is included."""
    carbon_intensity: float
    """Grams of CO2 equivalent per kilowatt-hour."""


class EnergyMeter:
    """Adds up the energy used between each `start` and `stop`.

    Build it before memory and time are measured: finding the hardware takes about two seconds
    and some memory. Starting and stopping take about 3 ms, and a thread wakes once a second for
    0.2 ms. A long run should `read` it every few minutes, because the processors' counter
    overflows after about 250 kJ.

    Args:
        device: where the run computes.
        carbon_intensity: grams of CO2 equivalent per kilowatt-hour.
    """

    def __init__(self, device: torch.device, carbon_intensity: float = WORLD_AVERAGE) -> None:
        self._carbon_intensity = carbon_intensity
        self._joules = 0.0
        self._seconds = 0.0
        self._started_at: float | None = None
        self._failure: str | None = None
        self._sources: list[_Source] = []
        self._still_seconds: dict[str, float] = {}
        """For how long the counter of each source has not moved, by the source's scope."""
        with self._noting_failure():
            self._sources = _sources(device)

    def start(self) -> None:
        """Start or continue measuring."""
        with self._noting_failure():
            for source in self._sources:
                source.start()
        self._started_at = time.perf_counter()

    def stop(self) -> None:
        """Pause, if it is running."""
        if self._started_at is None:
            return
        seconds = time.perf_counter() - self._started_at
        self._seconds += seconds
        self._started_at = None
        with self._noting_failure():
            for source in self._sources:
                self._joules += self._plausible(source, source.stop(), seconds)

    def read(self) -> Energy:
        """Return the energy so far, without stopping."""
        if self._started_at is not None:
            self.stop()
            self.start()
        return Energy(
            kilowatt_hours=self._measured(self._joules / _JOULES_PER_KILOWATT_HOUR),
            emissions_g=self._measured(
                self._joules / _JOULES_PER_KILOWATT_HOUR * self._carbon_intensity
            ),
            method=self._method,
            scope=" + ".join(source.scope for source in self._sources),
            carbon_intensity=self._carbon_intensity,
        )

    def state(self) -> dict[str, float | str | None]:
        """Return the state from which another process can continue."""
        self.read()
        return {
            "joules": self._joules,
            "seconds": self._seconds,
            "failure": self._failure,
            "method": self._method,
        }

    def restore(self, state: Mapping[str, float | str | None]) -> None:
        """Add what earlier processes have measured."""
        self._joules += float(state["joules"] or 0)
        self._seconds += float(state["seconds"] or 0)
        if state["failure"] is not None:
            self._failure = str(state["failure"])
        elif state["method"] != self._method:
            self._failure = f"the run was {state['method']} at first and then {self._method}"

    @property
    def _method(self) -> str:
        return " + ".join(source.method for source in self._sources)

    def _measured(self, value: float) -> Measured:
        if self._failure is not None:
            return Measured(None, self._failure)
        if self._seconds < _SHORTEST_SECONDS:
            return Measured(None, f"{self._seconds:.2g} s are too short for one measurement")
        return Measured(value)

    def _plausible(self, source: _Source, joules: float, seconds: float) -> float:
        """Return a source's reading, and note a counter that stands still or goes backwards."""
        still = self._still_seconds.get(source.scope, 0.0) + seconds if joules == 0 else 0.0
        self._still_seconds[source.scope] = still
        counter = f"the counter of {source.scope} ({source.method})"
        if joules < 0:
            self._failure = self._failure or f"{counter} went backwards"
        elif joules == 0 and still >= _SHORTEST_SECONDS:
            self._failure = self._failure or f"{counter} stood still for {still:.2g} s"
        return joules

    @contextlib.contextmanager
    def _noting_failure(self) -> Iterator[None]:
        # A run must not fail because of a driver or an energy counter.
        try:
            yield
        except Exception as error:
            self._failure = (
                self._failure or f"energy cannot be read: {type(error).__name__}: {error}"
            )


class _Source(Protocol):
    method: str
    scope: str

    def start(self) -> None:
        """Begin counting."""

    def stop(self) -> float:
        """Return the energy since the start, in joules."""


def _sources(device: torch.device) -> list[_Source]:
    if device.type != "cuda":
        return [_Processors()]
    return [_GraphicsCard(device), *([_Processors()] if is_rapl_available() else [])]


class _GraphicsCard:
    """The energy counter of one NVIDIA GPU."""

    method = "measured nvml"
    scope = "the run's GPU"

    def __init__(self, device: torch.device) -> None:
        import pynvml

        pynvml.nvmlInit()
        self._device = device
        self._counter = pynvml.nvmlDeviceGetTotalEnergyConsumption
        # Found by UUID, because NVML's indices ignore CUDA_VISIBLE_DEVICES.
        identifier = torch.cuda.get_device_properties(device).uuid
        self._handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{identifier}".encode())
        self._started_at = self._joules()

    def start(self) -> None:
        self._started_at = self._joules()

    def stop(self) -> float:
        return self._joules() - self._started_at

    def _joules(self) -> float:
        torch.cuda.synchronize(self._device)
        return float(self._counter(self._handle)) / 1000


class _Processors:
    """The processors, read through codecarbon's tracker; each phase is one of its tasks.

    The tracker's totals include the pauses between tasks, so only tasks are added up. Its constant
    estimate for memory is left out if the processors are measured. It tracks the machine, because
    tracking one process means reading all processes of the machine every second.
    """

    def __init__(self) -> None:
        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
        # Everything that a user's own codecarbon configuration could change is set here.
        self._tracker = OfflineEmissionsTracker(
            tracking_mode="machine",
            gpu_ids=[],
            output_methods=[],
            emissions_endpoint=False,
            force_cpu_power=None,
            force_mode_cpu_load=False,
            rapl_include_dram=False,
            rapl_prefer_psys=False,
            pue=1.0,
            force_carbon_intensity_g_co2e_kwh=WORLD_AVERAGE,
            allow_multiple_runs=True,
            log_level="critical",
        )
        self._tracker.get_detected_hardware()
        self._is_measured = is_rapl_available()
        self.method = "measured rapl" if self._is_measured else "estimated cpu_load"
        self.scope = "the processors of the machine" if self._is_measured else "the whole machine"

    def start(self) -> None:
        self._tracker.start_task()

    def stop(self) -> float:
        used = self._tracker.stop_task()
        kilowatt_hours = used.cpu_energy if self._is_measured else used.energy_consumed
        return float(kilowatt_hours) * _JOULES_PER_KILOWATT_HOUR
