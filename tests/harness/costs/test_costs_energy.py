from __future__ import annotations

import logging
import socket
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from harness.costs import energy
from harness.costs.energy import WORLD_AVERAGE, EnergyMeter
from harness.costs.memory import Measured

CPU = torch.device("cpu")


class Clock:
    """Stands in for the module ``time``."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Lamp:
    """Uses 100 W."""

    method = "measured lamp"
    scope = "one lamp"

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.lit_at = 0.0

    def start(self) -> None:
        self.lit_at = self.clock.now

    def stop(self) -> float:
        return 100 * (self.clock.now - self.lit_at)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(energy, "time", clock)
    monkeypatch.setattr(energy, "_sources", lambda device: [Lamp(clock)])
    return clock


def test_phases_add_up_and_pauses_do_not(clock: Clock):
    meter = EnergyMeter(CPU, carbon_intensity=200)
    meter.start()
    clock.now += 1800
    meter.stop()
    clock.now += 5000
    meter.stop()
    meter.start()
    clock.now += 900
    read = meter.read()
    assert read.kilowatt_hours == Measured(pytest.approx(0.075))
    assert read.emissions_g == Measured(pytest.approx(15))
    assert (read.method, read.scope, read.carbon_intensity) == ("measured lamp", "one lamp", 200)
    clock.now += 900  # reading has not stopped it
    assert meter.read().kilowatt_hours == Measured(pytest.approx(0.1))


def test_too_short_is_no_zero(clock: Clock):
    meter = EnergyMeter(CPU)
    assert meter.read().kilowatt_hours.value is None
    meter.start()
    clock.now += 0.5
    read = meter.read()
    assert read.kilowatt_hours == Measured(None, "0.5 s are too short for one measurement")
    assert read.emissions_g.value is None


def test_a_resumed_run_adds_what_was_used_before(clock: Clock):
    first = EnergyMeter(CPU)
    first.start()
    clock.now += 3600
    second = EnergyMeter(CPU)
    second.restore(first.state())
    assert second.read().kilowatt_hours == Measured(pytest.approx(0.1))


def test_what_was_measured_in_two_ways_is_no_number(clock: Clock):
    first = EnergyMeter(CPU)
    first.start()
    clock.now += 3600
    second = EnergyMeter(CPU)
    second.restore(first.state() | {"method": "estimated moon"})
    measured = second.read().kilowatt_hours
    assert measured.value is None
    assert "estimated moon at first and then measured lamp" in (measured.reason or "")


def test_a_source_that_fails_costs_the_number_and_not_the_run(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
):
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
    """Its counter stands still."""

    scope = "a dead lamp"

    def stop(self) -> float:
        return 0.0


@pytest.mark.parametrize("pieces", [1, 8])
def test_a_counter_that_stands_still_gives_no_number(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, pieces: int
):
    monkeypatch.setattr(energy, "_sources", lambda device: [Lamp(clock), Dead(clock)])
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


def test_a_moment_in_which_a_counter_does_not_move_is_no_failure(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Lamp, "stop", lambda self: 100.0 * int(clock.now - self.lit_at))
    meter = EnergyMeter(CPU)
    for seconds in (0.5, 2.0, 0.9, 1.0):
        meter.start()
        clock.now += seconds
        meter.stop()
    assert meter.read().kilowatt_hours == Measured(pytest.approx(300 / 3.6e6))


def test_a_counter_that_runs_backwards_gives_no_number(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Lamp, "stop", lambda self: -1.0)
    meter = EnergyMeter(CPU)
    meter.start()
    clock.now += 10
    assert "went backwards" in (meter.read().kilowatt_hours.reason or "")


def test_a_machine_without_nvidia_driver_has_a_reason(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(energy, "is_rapl_available", lambda: False)
    meter = EnergyMeter(torch.device("cuda"))
    meter.start()
    meter.stop()
    assert "ModuleNotFoundError" in (meter.read().kilowatt_hours.reason or "")


def test_a_gpu_is_read_from_its_own_counter(monkeypatch: pytest.MonkeyPatch):
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
    assert read.kilowatt_hours == Measured(pytest.approx(36 / 3.6e6))
    assert (read.method, read.scope) == ("measured nvml", "the run's GPU")


class Tracker:
    """Stands in for codecarbon's."""

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
def test_a_constant_is_not_mixed_into_what_is_measured(
    monkeypatch: pytest.MonkeyPatch, has_counter: bool, kilowatt_hours: float, method: str
):
    monkeypatch.setattr(energy, "OfflineEmissionsTracker", Tracker)
    monkeypatch.setattr(energy, "is_rapl_available", lambda: has_counter)
    monkeypatch.setattr(energy, "_SHORTEST_SECONDS", 0)
    meter = EnergyMeter(CPU)
    meter.start()
    meter.stop()
    read = meter.read()
    assert read.kilowatt_hours == Measured(pytest.approx(kilowatt_hours))
    assert read.method == method


def test_the_real_meter_is_quiet_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
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
def test_the_real_meter_leaves_pauses_out():
    meter = EnergyMeter(CPU)
    meter.start()
    time.sleep(1.2)
    meter.stop()
    first = meter.read().kilowatt_hours.value
    time.sleep(4)
    meter.start()
    time.sleep(1.2)
    meter.stop()
    both = meter.read().kilowatt_hours.value
    assert first is not None
    assert both is not None
    assert 1.5 < both / first < 2.5
