"""Energy: how phases add up, and when there is a reason in place of a number."""

from __future__ import annotations

import logging
import socket
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.costs import energy
from harness.costs.energy import WORLD_AVERAGE, EnergyMeter
from harness.costs.memory import Measured
from tests.helpers.energy import Clock, Lamp, measure

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock, and a lamp of 100 W whose energy is measured."""
    clock = Clock()
    measure(monkeypatch, clock, Lamp(clock))
    return clock


def near(value: float) -> Any:
    """Return a number that equals all that differ by rounding."""
    return pytest.approx(value)


def test_phases_add_up_and_pauses_are_left_out(clock: Clock) -> None:
    meter = EnergyMeter(CPU, carbon_intensity=200)
    meter.start()
    clock.now += 1800
    meter.stop()
    clock.now += 5000
    meter.stop()
    meter.start()
    clock.now += 900
    read = meter.read()
    assert read.kilowatt_hours == Measured(near(0.075))
    assert read.emissions_g == Measured(near(15))
    assert (read.method, read.scope, read.carbon_intensity) == ("measured lamp", "one lamp", 200)
    clock.now += 900  # reading did not stop it
    assert meter.read().kilowatt_hours == Measured(near(0.1))


def test_a_phase_that_is_too_short_has_a_reason_and_no_number(clock: Clock) -> None:
    meter = EnergyMeter(CPU)
    assert meter.read().kilowatt_hours.value is None
    meter.start()
    clock.now += 0.5
    read = meter.read()
    assert read.kilowatt_hours == Measured(None, "0.5 s are too short for one measurement")
    assert read.emissions_g.value is None


def test_a_resumed_run_adds_the_energy_used_before(clock: Clock) -> None:
    first = EnergyMeter(CPU)
    first.start()
    clock.now += 3600
    second = EnergyMeter(CPU)
    second.restore(first.state())
    assert second.read().kilowatt_hours == Measured(near(0.1))


def test_energy_measured_in_two_ways_gives_no_number(clock: Clock) -> None:
    first = EnergyMeter(CPU)
    first.start()
    clock.now += 3600
    second = EnergyMeter(CPU)
    second.restore(first.state() | {"method": "estimated moon"})
    measured = second.read().kilowatt_hours
    assert measured.value is None
    assert "estimated moon at first and then measured lamp" in (measured.reason or "")


def test_a_failing_source_costs_the_number_and_not_the_run(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = EnergyMeter(CPU)
    monkeypatch.setattr(Lamp, "stop", lambda self: 1 / 0)
    meter.start()
    clock.now += 10
    meter.stop()
    monkeypatch.setattr(Lamp, "start", lambda self: [][0])
    meter.start()
    expected = Measured(None, "energy cannot be read: ZeroDivisionError: division by zero")
    assert meter.read().kilowatt_hours == expected
    later = EnergyMeter(CPU)
    later.restore(meter.state())
    assert later.read().kilowatt_hours == expected


class Dead(Lamp):
    """A source whose counter stands still."""

    scope = "a dead lamp"

    def stop(self) -> float:
        return 0.0


@pytest.mark.parametrize("pieces", [1, 8])
def test_a_counter_that_stands_still_gives_no_number(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    measure(monkeypatch, clock, Lamp(clock), Dead(clock))
    meter = EnergyMeter(CPU)
    for _ in range(pieces):
        meter.start()
        clock.now += 4 / pieces
        meter.stop()
    read = meter.read()
    assert read.kilowatt_hours.value is read.emissions_g.value is None
    reason = read.kilowatt_hours.reason or ""
    assert "the counter of a dead lamp (measured lamp) stood still for" in reason
    later = EnergyMeter(CPU)
    later.restore(meter.state())
    assert later.read().kilowatt_hours == read.kilowatt_hours


def test_a_counter_may_stand_still_for_a_moment(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lamp, "stop", lambda self: 100.0 * int(clock.now - self.lit_at))
    meter = EnergyMeter(CPU)
    for seconds in (0.5, 2.0, 0.9, 1.0):
        meter.start()
        clock.now += seconds
        meter.stop()
    assert meter.read().kilowatt_hours == Measured(near(300 / 3.6e6))


def test_a_counter_that_runs_backwards_gives_no_number(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lamp, "stop", lambda self: -1.0)
    meter = EnergyMeter(CPU)
    meter.start()
    clock.now += 10
    assert "went backwards" in (meter.read().kilowatt_hours.reason or "")


def test_a_machine_without_an_nvidia_driver_gives_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(energy, "is_rapl_available", lambda: False)
    meter = EnergyMeter(torch.device("cuda"))
    meter.start()
    meter.stop()
    assert "ModuleNotFoundError" in (meter.read().kilowatt_hours.reason or "")


def test_the_energy_of_a_gpu_comes_from_its_own_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = iter([5_000, 10_000, 46_000])  # millijoules
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda identifier: {b"GPU-12ab": "the run's"}[identifier],
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(counter),
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(energy, "is_rapl_available", lambda: False)
    monkeypatch.setattr(energy, "_SHORTEST_SECONDS", 0)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="12ab")
    )
    meter = EnergyMeter(torch.device("cuda:1"))
    meter.start()
    meter.stop()
    read = meter.read()
    assert read.kilowatt_hours == Measured(near(36 / 3.6e6))
    assert (read.method, read.scope) == ("measured nvml", "the run's GPU")


class Tracker:
    """Stands in for the tracker of codecarbon."""

    def __init__(self, **options: object) -> None:
        pass

    def get_detected_hardware(self) -> None:
        pass

    def start_task(self) -> None:
        pass

    def stop_task(self) -> SimpleNamespace:
        return SimpleNamespace(cpu_energy=2.0, ram_energy=5.0, energy_consumed=7.0)


@pytest.mark.parametrize(
    ("has_counter", "kilowatt_hours", "method"),
    [(True, 2.0, "measured rapl"), (False, 7.0, "estimated cpu_load")],
)
def test_a_measured_energy_contains_no_estimate(
    monkeypatch: pytest.MonkeyPatch, has_counter: bool, kilowatt_hours: float, method: str
) -> None:
    monkeypatch.setattr(energy, "OfflineEmissionsTracker", Tracker)
    monkeypatch.setattr(energy, "is_rapl_available", lambda: has_counter)
    monkeypatch.setattr(energy, "_SHORTEST_SECONDS", 0)
    meter = EnergyMeter(CPU)
    meter.start()
    meter.stop()
    read = meter.read()
    assert read.kilowatt_hours == Measured(near(kilowatt_hours))
    assert read.method == method


def test_the_real_meter_prints_nothing_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CODECARBON_OUTPUT_METHODS", "api")
    said: list[logging.LogRecord] = []
    monkeypatch.setattr(logging.getLogger("codecarbon"), "handle", said.append)
    connections: list[object] = []
    for step in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, step, lambda *address, **_: connections.append(address))
    monkeypatch.setattr(energy, "_SHORTEST_SECONDS", 0)
    threads = set(threading.enumerate())
    meter = EnergyMeter(CPU)
    meter.start()
    time.sleep(0.1)
    meter.stop()
    read = meter.read()
    assert read.kilowatt_hours.value is not None, read.kilowatt_hours.reason
    assert 1 < read.kilowatt_hours.value * 3.6e6 / 0.1 < 3000  # watts
    grams = read.emissions_g.value
    assert grams == pytest.approx(read.kilowatt_hours.value * WORLD_AVERAGE)
    assert read.method in {"measured rapl", "estimated cpu_load"}
    for thread in set(threading.enumerate()) - threads:
        thread.join(timeout=2)
    assert set(threading.enumerate()) <= threads
    for _ in range(10):  # enough for codecarbon to report to its service, if it did
        meter.start()
        meter.stop()
    assert connections == []
    assert list(tmp_path.iterdir()) == []
    assert said == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_the_real_meter_leaves_out_a_pause() -> None:
    """A pause three times as long as the first phase adds less than that phase did."""
    meter = EnergyMeter(CPU)
    meter.start()
    time.sleep(1.1)
    meter.stop()
    first = meter.read().kilowatt_hours.value
    time.sleep(3.3)
    meter.start()
    meter.stop()
    both = meter.read().kilowatt_hours.value
    assert first is not None
    assert both is not None
    assert first <= both < 2 * first
