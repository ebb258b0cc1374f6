"""What the costs of a run contain, and what they leave out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from harness.costs import energy
from harness.costs import meter as cost_meter
from harness.costs.meter import CostMeter
from harness.costs.timing import Usage
from harness.pruning import event
from harness.pruning.diagnostics import TangentKernel
from harness.record import NOTHING_SCORED
from harness.task import Task
from tests.helpers.energy import Clock, Lamp, measure
from tests.helpers.workbench import CPU, Workbench

MIB = 1024**2
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports peak memory")


class SharedClock(Clock):
    """The time on a machine on which other processes work, too."""

    share = 1.0
    """Of the time that the working thread has a processor."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SharedClock:
    """A clock for time and energy, and a lamp of 3.6 kW whose energy is measured."""
    clock = SharedClock()

    class Watch:
        """Stands in for `Stopwatch`: two threads of this process work, and half of another."""

        def __init__(self) -> None:
            self.began = clock.now

        def read(self) -> Usage:
            """Return what was used since it was made."""
            wall = clock.now - self.began
            return Usage(wall, 2 * wall, clock.share * wall, 0.5 * wall)

    measure(monkeypatch, clock, Lamp(clock, watts=3600))
    monkeypatch.setattr(cost_meter, "Stopwatch", Watch)
    return clock


def test_time_and_energy_are_those_of_the_method_alone(clock: SharedClock) -> None:
    costs = CostMeter(CPU, measure_energy=True)
    clock.now += 100  # before the method begins
    with costs.running():
        clock.now += 1
        with costs.instrument():
            clock.now += 200
            with costs.instrument():
                clock.now += 300
        clock.now += 2
    with costs.instrument():
        clock.now += 400
    with costs.running():
        clock.now += 4
    closed = costs.close()
    assert closed["train_seconds"] == 7
    assert closed["train_cpu_seconds"] == 14
    assert closed["instrument_seconds"] == 900
    assert closed["energy_kwh"] == pytest.approx(0.007)
    assert closed["emissions_g"] == pytest.approx(0.007 * energy.WORLD_AVERAGE)


def test_an_instrument_without_memory_is_left_out_as_well(clock: SharedClock) -> None:
    costs = CostMeter(CPU, measure_energy=False)
    with costs.running():
        clock.now += 1
        with costs.instrument(takes_memory=False):
            clock.now += 200
            with costs.instrument():
                clock.now += 300
    closed = costs.close()
    assert (closed["train_seconds"], closed["instrument_seconds"]) == (1, 500)


def test_an_instrument_that_fails_leaves_the_clocks_running(clock: SharedClock) -> None:
    def fail_after(seconds: float) -> None:
        clock.now += seconds
        raise KeyError

    costs = CostMeter(CPU, measure_energy=False)
    with costs.running():
        with pytest.raises(KeyError), costs.instrument():
            fail_after(10)
        clock.now += 1
    assert costs.close()["train_seconds"] == 1


def test_the_costs_of_all_attempts_add_up(clock: SharedClock) -> None:
    first = CostMeter(CPU, measure_energy=True, load_before=0.25)
    with first.running():
        clock.now += 10
        with first.instrument():
            clock.now += 5
            state = first.state()
    second = CostMeter(CPU, measure_energy=True, load_before=7.0)
    second.restore(state)
    with second.running():
        clock.now += 20
    closed = second.close()
    assert closed["train_seconds"] == 30
    assert closed["energy_kwh"] == pytest.approx(0.03)
    assert closed["load"] == {"train_seconds": {"before": 0.25, "during": 0.5}}


@pytest.mark.parametrize(("share", "disturbed"), [(0.96, {}), (0.6, {"train_seconds": 0.4})])
def test_a_time_is_marked_if_the_run_had_no_processor_for_a_part_of_it(
    clock: SharedClock, share: float, disturbed: dict[str, float]
) -> None:
    costs = CostMeter(CPU, measure_energy=False)
    clock.share = share
    with costs.running():
        clock.now += 10
    assert costs.close()["disturbed"] == disturbed


def test_an_energy_is_marked_if_other_processes_worked_too(clock: SharedClock) -> None:
    """A fifth of the work on the machine of `SharedClock` is that of other processes."""
    costs = CostMeter(CPU, measure_energy=True)
    with costs.running():
        clock.now += 10
    assert costs.close()["disturbed"] == {"energy_kwh": 0.2}


def test_the_processor_says_nothing_about_a_gpu(
    clock: SharedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every reading of a clock waits for the GPU first."""
    waited: list[object] = []
    for name in ("memory_allocated", "max_memory_allocated", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda device: 0)
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    costs = CostMeter(torch.device("cuda"), measure_energy=False)
    clock.share = 0.1
    with costs.running():
        clock.now += 1
        with costs.instrument():
            clock.now += 1
    closed = costs.close()
    assert len(waited) == 5
    assert (closed["train_seconds"], closed["train_cpu_seconds"]) == (1, None)
    assert closed["disturbed"] == {}
    assert "GPU" in closed["reasons"]["train_cpu_seconds"]


@needs_linux
def test_the_peak_is_that_of_the_method_alone() -> None:
    torch.ones(8 * MIB, dtype=torch.uint8)  # loads the code that torch needs for it
    costs = CostMeter(CPU, measure_energy=False)
    model = torch.ones(8 * MIB, dtype=torch.uint8)
    costs.begin()
    with costs.running():
        torch.ones(16 * MIB, dtype=torch.uint8)
        with costs.instrument(takes_memory=False), costs.instrument():
            kept = torch.ones(60 * MIB, dtype=torch.uint8)
            torch.ones(40 * MIB, dtype=torch.uint8)
        torch.ones(20 * MIB, dtype=torch.uint8)
    closed = costs.close()
    assert closed["peak_run_bytes"] / MIB == pytest.approx(28, abs=5)
    assert closed["peak_run_bytes_with_instruments"] / MIB == pytest.approx(108, abs=5)
    del kept, model


Wasteful = Callable[..., Any]


def wasting(function: Wasteful, kept: list[torch.Tensor]) -> Wasteful:
    """Return a function that allocates 50 MB on the way and keeps 5 MB."""

    def wasteful(*arguments: Any, **options: Any) -> Any:
        torch.ones(50 * MIB, dtype=torch.uint8)
        kept.append(torch.ones(5 * MIB, dtype=torch.uint8))
        return function(*arguments, **options)

    return wasteful


def waste(monkeypatch: pytest.MonkeyPatch, instrument: str, points: type[Task]) -> None:
    owner: Any
    owner, name = {
        "validation and test": (points, "evaluate"),
        "gradient flow": (event, "gradient_flow"),
        "kernel": (TangentKernel, "kernel"),
        "checkpoint": (torch, "save"),
    }[instrument]
    monkeypatch.setattr(owner, name, wasting(getattr(owner, name), []))


@needs_linux
@pytest.mark.parametrize(
    "instrument", ["validation and test", "gradient flow", "kernel", "checkpoint"]
)
def test_memory_that_an_instrument_takes_does_not_count(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, instrument: str
) -> None:
    waste(monkeypatch, instrument, bench.points)
    record = bench.run("earlycrop_u", kernel="on")
    assert record["cost"]["peak_run_bytes"] < 10e6
    assert record["cost"]["peak_run_bytes_with_instruments"] > 50e6


@needs_linux
def test_memory_that_the_method_takes_counts(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.points, "scoring_loss", wasting(bench.points.scoring_loss, []))
    assert bench.run("snip")["cost"]["peak_run_bytes"] > 50e6


def slow(monkeypatch: pytest.MonkeyPatch, clock: SharedClock, owner: Any, name: str) -> None:
    """Make a function take a minute."""
    function = getattr(owner, name)

    def slowly(*arguments: Any, **options: Any) -> Any:
        clock.now += 60
        return function(*arguments, **options)

    monkeypatch.setattr(owner, name, slowly)


def test_slow_instruments_take_no_time_and_no_energy(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, clock: SharedClock
) -> None:
    for owner, name in [
        (bench.points, "evaluate"),
        (event, "gradient_flow"),
        (TangentKernel, "kernel"),
        (torch, "save"),
    ]:
        slow(monkeypatch, clock, owner, name)

    def cost_of(record: Any) -> tuple[float, float]:
        return record["cost"]["train_seconds"], record["cost"]["energy_kwh"] or 0.0

    embedded = bench.run("crop_u", profile="embedded", kernel="on")
    assert cost_of(embedded) == (0, 0)
    assert embedded["cost"]["instrument_seconds"] > 600
    slow(monkeypatch, clock, bench.points, "loss")
    taken = bench.run("dense", profile="embedded")
    assert cost_of(taken) == pytest.approx((20 * 60, 1.2))


def test_scoring_is_timed_as_a_part_of_the_method_without_instruments(clock: SharedClock) -> None:
    costs = CostMeter(CPU, measure_energy=False)
    with costs.running():
        clock.now += 1
        with costs.scoring():
            clock.now += 2
            with costs.instrument():
                clock.now += 100
        with costs.scoring():
            clock.now += 4
    closed = costs.close()
    assert closed["scoring_seconds"] == 6
    assert closed["train_seconds"] == 7


def test_what_is_counted_adds_up_over_the_attempts() -> None:
    first = CostMeter(CPU, measure_energy=False)
    first.count(macs=10**20, passes=10)
    second = CostMeter(CPU, measure_energy=False)
    second.restore(first.state())
    second.count(macs=1)
    second.count(macs=2, passes=15)
    closed = second.close()
    assert closed["train_macs"] == 10**20 + 3
    assert closed["scoring_passes"] == 25


def test_a_method_that_scores_nothing_has_no_cost_of_scoring() -> None:
    closed = CostMeter(CPU, measure_energy=False).close()
    for name in ("scoring_seconds", "scoring_passes", "peak_scoring_bytes"):
        assert closed[name] is None
        assert closed["reasons"][name] == NOTHING_SCORED


def test_a_run_whose_beginning_was_not_counted_has_no_counts() -> None:
    """The checkpoints of earlier versions of the project lack them."""
    first = CostMeter(CPU, measure_energy=False)
    state = first.state()
    del state["train_macs"], state["why_no_macs"], state["scoring"]
    second = CostMeter(CPU, measure_energy=False)
    second.restore(state)
    second.count(macs=5, passes=1)
    closed = second.close()
    assert closed["train_macs"] is None
    assert closed["scoring_passes"] is None
    assert "did not count" in closed["reasons"]["train_macs"]
