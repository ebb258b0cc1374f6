"""The costs of a run, added up over its attempts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from harness.costs.memory import Measured, PeakMemory
from harness.costs.timing import Stopwatch, Usage, waited
from harness.record import DISTURBED, NOTHING_SCORED

if TYPE_CHECKING:
    from harness.costs.energy import EnergyMeter


class Instrument(Protocol):
    """Gives a context that is left out of the method's costs; see `CostMeter.instrument`."""

    def __call__(self, *, takes_memory: bool = True) -> AbstractContextManager[None]:
        """Return the context."""


NOT_COUNTED = "the run began with a version of this project that did not count them"
NO_PROCESSOR_TIME = "processor time does not measure the work of a GPU"


@dataclass(frozen=True)
class ScoringUsage:
    """What all scoring of a run took.

    Attributes:
        seconds: wall time.
        peak: peak memory in bytes, beyond what the run held when it began to score; None if it
            could not be measured.
        passes: forward and backward passes over a scoring batch.
    """

    seconds: float
    peak: int | float | None
    passes: int

    def __add__(self, other: ScoringUsage) -> ScoringUsage:
        peaks = [each.peak for each in (self, other) if each.peak is not None]
        return ScoringUsage(
            self.seconds + other.seconds, max(peaks, default=None), self.passes + other.passes
        )


class CostMeter:
    """Measures time, energy and peak memory of a run.

    Time and energy add up over the attempts of an interrupted run; of the memory the highest peak
    counts. Only the method counts: training steps, scores, the readings of its triggers. The
    suite's instruments (validation, gradient flow, tangent kernel) and its own work (checkpoints,
    journal) are left out of time, energy and memory.

    The work of a killed process after its last checkpoint is done again, and counted once.

    Args:
        device: where the run computes.
        measure_energy: False saves the two seconds of searching for energy counters.
        load_before: how many processors other work kept busy before the run.
    """

    def __init__(
        self, device: torch.device, measure_energy: bool, load_before: float | None = None
    ) -> None:
        self._device = device
        self._energy: EnergyMeter | None = None
        if measure_energy:
            # Imported here to save smoke runs the import of codecarbon.
            from harness.costs.energy import EnergyMeter

            self._energy = EnergyMeter(device)
        self._load_before = load_before
        self._memory = PeakMemory(device)
        self._method = self._instruments = Usage()
        self._earlier_peak = self._earlier_peak_of_all = 0
        self._stopwatch: Stopwatch | None = None
        self._is_paused = False
        self._train_macs = 0
        self._why_no_macs: str | None = None
        self._scoring: ScoringUsage | None = None
        self._why_no_peak: str | None = None

    @property
    def is_paused(self) -> bool:
        """Whether an instrument works, so that nothing counts."""
        return self._is_paused

    def begin(self) -> None:
        """Leave out the temporary memory of building and restoring the network."""
        self._memory.start()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time and energy of a context."""
        self._go_on()
        try:
            yield
        finally:
            self._halt()

    @contextmanager
    def instrument(self, *, takes_memory: bool = True) -> Iterator[None]:
        """Leave a context out of all costs, and the memory that it leaves behind, too.

        Args:
            takes_memory: False for a context that takes no memory worth measuring. To measure it,
                freed memory is given back to the system, and whatever the method allocates next
                takes longer: a training step of 50 ms takes 8 ms more.
        """
        with self._stopped(), self._memory.paused() if takes_memory else nullcontext():
            yield

    @contextmanager
    def _stopped(self) -> Iterator[None]:
        """Count the time of a context as that of an instrument."""
        if self._is_paused:
            yield
            return
        was_running = self._stopwatch is not None
        self._halt()
        self._is_paused = True
        stopwatch = Stopwatch()
        try:
            yield
        finally:
            self._synchronise()
            self._instruments += stopwatch.read()
            self._is_paused = False
            if was_running:
                self._go_on()

    @contextmanager
    def scoring(self, *, measures_memory: bool = True) -> Iterator[None]:
        """Count the time of a context as that of scoring, too, and its memory if it is measured."""
        was_running = self._stopwatch is not None
        self._halt()
        before = self._method.wall
        try:
            with self._memory.part() if measures_memory else nullcontext() as peak:
                self._go_on()
                try:
                    yield
                finally:
                    self._halt()
            highest = None
            if peak is not None:
                highest, self._why_no_peak = peak().value, peak().reason
            self._score(ScoringUsage(self._method.wall - before, highest, 0))
        finally:
            if was_running:
                self._go_on()

    def count(self, *, macs: int, passes: int = 0) -> None:
        """Add what was counted.

        Args:
            macs: multiply-accumulates of training or scoring.
            passes: passes over a scoring batch.
        """
        self._train_macs += macs
        if passes:
            self._score(ScoringUsage(0.0, None, passes))

    def cannot_count(self, why: str) -> None:
        """Leave out the multiply-accumulates of the run, of which a part is not known."""
        self._why_no_macs = self._why_no_macs or why

    def _score(self, usage: ScoringUsage) -> None:
        self._scoring = usage if self._scoring is None else self._scoring + usage

    def _go_on(self) -> None:
        self._synchronise()
        if self._energy is not None:
            self._energy.start()
        self._stopwatch = Stopwatch()

    def _halt(self) -> None:
        if self._stopwatch is None:
            return
        self._synchronise()
        self._method += self._stopwatch.read()
        self._stopwatch = None
        if self._energy is not None:
            self._energy.stop()

    def _synchronise(self) -> None:
        """Wait for the GPU, so that its work counts where it was started."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def state(self) -> dict[str, Any]:
        """Return the state from which another process can continue."""
        return {
            "method": asdict(self._method),
            "instruments": asdict(self._instruments),
            "load_before": self._load_before,
            "peak": self._peak().value,
            "peak_of_all": self._peak_of_all().value,
            "energy": None if self._energy is None else self._energy.state(),
            "train_macs": self._train_macs,
            "why_no_macs": self._why_no_macs,
            "scoring": None if self._scoring is None else asdict(self._scoring),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Add what earlier processes have measured."""
        self._method += Usage(**state["method"])
        self._instruments += Usage(**state["instruments"])
        self._load_before = state["load_before"]
        self._earlier_peak = state["peak"] or 0
        self._earlier_peak_of_all = state["peak_of_all"] or 0
        if self._energy is not None:
            self._energy.restore(state["energy"])
        # Checkpoints of earlier versions of the project lack what follows.
        self._train_macs += state.get("train_macs", 0)
        if (why := state.get("why_no_macs", NOT_COUNTED)) is not None:
            self.cannot_count(why)
        if (scoring := state.get("scoring")) is not None:
            self._score(ScoringUsage(**scoring))

    def close(self) -> dict[str, Any]:
        """Stop measuring and return the run's part of the record's costs."""
        self._halt()
        peak, of_all = self._peak(), self._peak_of_all()
        method = self._method
        on_processor = self._device.type != "cuda"
        costs: dict[str, Any] = {
            "train_seconds": method.wall,
            "train_cpu_seconds": method.process if on_processor else None,
            "train_macs": None if self._why_no_macs else self._train_macs,
            "peak_run_bytes": peak.value,
            "instrument_seconds": self._instruments.wall,
            "peak_run_bytes_with_instruments": of_all.value,
            "load": {"train_seconds": {"before": self._load_before, "during": method.load}},
            "disturbed": {},
        }
        reasons: dict[str, str | None] = {
            "peak_run_bytes": peak.reason,
            "peak_run_bytes_with_instruments": of_all.reason,
            "train_cpu_seconds": None if on_processor else NO_PROCESSOR_TIME,
            "train_macs": self._why_no_macs,
        }
        costs |= self._scoring_costs(reasons)
        share = waited(method.wall, method.thread)
        if on_processor and share > DISTURBED:
            costs["disturbed"]["train_seconds"] = round(share, 3)
        if self._energy is None:
            reason = "energy is not measured in the smoke profile"
            costs |= {"energy_kwh": None, "emissions_g": None, "energy_method": None}
            reasons |= {"energy_kwh": reason, "emissions_g": reason}
        else:
            energy = self._energy.read()
            costs |= {
                "energy_kwh": energy.kilowatt_hours.value,
                "emissions_g": energy.emissions_g.value,
                "energy_method": energy.method,
                "energy_scope": energy.scope,
                "carbon_intensity_g_per_kwh": energy.carbon_intensity,
            }
            share = method.share_of_others
            if on_processor and share > DISTURBED and energy.kilowatt_hours.value is not None:
                costs["disturbed"]["energy_kwh"] = round(share, 3)
            reasons |= {
                "energy_kwh": energy.kilowatt_hours.reason,
                "emissions_g": energy.emissions_g.reason,
            }
        return {**costs, "reasons": {name: why for name, why in reasons.items() if why}}

    def _scoring_costs(self, reasons: dict[str, str | None]) -> dict[str, Any]:
        """Return what scoring cost, and add why a part of it is not known."""
        scoring, why = self._scoring, NOTHING_SCORED
        if self._why_no_macs == NOT_COUNTED:
            scoring, why = None, NOT_COUNTED
        if scoring is None:
            names = ("scoring_seconds", "peak_scoring_bytes", "scoring_passes")
            reasons |= dict.fromkeys(names, why)
            return dict.fromkeys(names)
        reasons["peak_scoring_bytes"] = None if scoring.peak is not None else self._why_no_peak
        return {
            "scoring_seconds": scoring.seconds,
            "peak_scoring_bytes": scoring.peak,
            "scoring_passes": scoring.passes,
        }

    def _peak(self) -> Measured:
        return _at_least(self._memory.peak(), self._earlier_peak)

    def _peak_of_all(self) -> Measured:
        return _at_least(self._memory.peak_of_all(), self._earlier_peak_of_all)


def _at_least(peak: Measured, earlier: int) -> Measured:
    return peak if peak.value is None else Measured(max(int(peak.value), earlier))
