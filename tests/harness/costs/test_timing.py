"""Time: of repeated calls, and how much of it others had the processor."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from itertools import chain, cycle, repeat
from types import SimpleNamespace

import pytest
import torch

from harness.costs import timing
from harness.costs.timing import Stopwatch, Timing, Usage, time_call, waited

CPU = torch.device("cpu")
WARM_UPS = 10

CallOf = Callable[[Iterable[float]], Callable[[], None]]
"""Makes a call that takes one duration after another, in seconds."""


@pytest.fixture
def call_of(monkeypatch: pytest.MonkeyPatch) -> CallOf:
    """Makes calls that take known durations on a clock of their own."""
    now = 0.0
    monkeypatch.setattr(timing, "timer", lambda: now)

    def make(durations: Iterable[float]) -> Callable[[], None]:
        waiting = iter(durations)

        def call() -> None:
            nonlocal now
            now += next(waiting)

        return call

    return make


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_a_call_is_repeated_at_least_fifty_times_and_for_half_a_second(call_of: CallOf) -> None:
    timed = time_call(call_of(repeat(0.1)), CPU)
    assert timed.median_ms == pytest.approx(100)
    assert timed.repetitions == 50
    timed = time_call(call_of(repeat(0.001)), CPU)
    assert timed.repetitions == pytest.approx(500, abs=1)


def test_the_time_for_a_long_call_is_bounded(call_of: CallOf) -> None:
    timed = time_call(call_of(repeat(1.0)), CPU, at_most_seconds=10.5)
    warm_ups = 3  # until a fifth of the time is over
    assert timed.repetitions == 11 - warm_ups
    assert time_call(call_of(repeat(1000.0)), CPU).repetitions == 3


def test_the_spread_is_the_interquartile_range(call_of: CallOf) -> None:
    disturbed = [0.01, 0.02, 0.03, 0.04, 5.0]
    durations = chain(repeat(0.03, WARM_UPS), cycle(disturbed))
    timed = time_call(call_of(durations), CPU, at_most_seconds=100)
    assert timed.median_ms == pytest.approx(30)
    assert timed.interquartile_range_ms == pytest.approx(20)


def test_the_first_calls_are_not_counted(call_of: CallOf) -> None:
    durations = chain(repeat(0.1, WARM_UPS), repeat(0.01))
    assert time_call(call_of(durations), CPU).interquartile_range_ms == pytest.approx(0, abs=1e-6)


def test_processor_time_is_measured_beside_wall_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads work for 10 ms; the calling one has no processor for 4 of them."""
    clocks = {"timer": 0.0, "thread_time": 0.0, "process_time": 0.0}
    for name in clocks:
        monkeypatch.setattr(timing, name, lambda name=name: clocks[name])

    def call() -> None:
        clocks["timer"] += 0.010
        clocks["thread_time"] += 0.006
        clocks["process_time"] += 0.016

    timed = time_call(call, CPU)
    assert timed.median_ms == pytest.approx(10)
    assert timed.cpu_ms == pytest.approx(16)
    assert timed.waited == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("waited", "load", "share"),
    [(0.4, None, 0.4), (0.4, 2.0, 0.4), (0.02, 0.5, 0.02), (0.0, 0.2, 0.001), (0.04, 0.1, None)],
)
def test_a_time_is_disturbed_by_waiting_or_by_busy_processors(
    waited: float, load: float | None, share: float | None
) -> None:
    timed = Timing(1.0, 0.0, 50, 1.0, waited=waited, load=load)
    assert timed.disturbed == share


def test_every_reading_of_the_clock_waits_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(torch.cuda, "synchronize", asked.append)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    device = torch.device("cuda:1")
    timed = time_call(lambda: None, device, at_most_seconds=0.01)
    assert set(asked) == {device}
    assert len(asked) >= 2 * timed.repetitions


def test_the_clock_is_a_real_one() -> None:
    timed = time_call(lambda: sum(range(100_000)), CPU, at_most_seconds=0.1)
    assert 0.1 < timed.median_ms < 1000
    assert timed.interquartile_range_ms >= 0


@pytest.mark.usefixtures("two_threads")
def test_all_workers_flush_denormals_while_timing_and_only_then() -> None:
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor cannot flush denormals")
    tiny = torch.full((1 << 18,), 1e-40)
    assert (tiny * 1).count_nonzero() == len(tiny)  # torch's workers exist from here on
    left: set[float] = set()
    time_call(lambda: left.add((tiny * 1).count_nonzero().item()), CPU, at_most_seconds=0.01)
    assert left == {0}
    assert (tiny * 1).count_nonzero() == len(tiny)


def test_a_thread_that_flushes_denormals_makes_the_calls_itself() -> None:
    """A second team of workers would outnumber the processors."""
    workers = torch.get_num_threads()
    torch.set_num_threads(1)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormals")
    seen = set()
    try:
        time_call(lambda: seen.add(threading.get_ident()), CPU, at_most_seconds=0.01)
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(workers)
    assert seen == {threading.get_ident()}


@pytest.mark.usefixtures("two_threads")
def test_torch_keeps_its_number_of_threads() -> None:
    seen: set[int] = set()
    time_call(lambda: seen.add(torch.get_num_threads()), CPU, at_most_seconds=0.01)
    assert seen == {2}
    assert torch.get_num_threads() == 2


def test_an_error_of_the_call_is_passed_on() -> None:
    with pytest.raises(ZeroDivisionError):
        time_call(lambda: 1 / 0, CPU)


ONE_THREAD = """
import os, torch
from harness.costs.timing import Stopwatch, Usage, time_call, waited

torch.set_num_threads(1)
network, batch = torch.nn.Linear(128, 128), torch.randn(128, 128)
threads = set()

def call():
    with torch.no_grad():
        network(batch)
    threads.add(len(os.listdir("/proc/self/task")))

before = len(os.listdir("/proc/self/task"))
time_call(call, torch.device("cpu"))
print(max(threads) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_timing_adds_one_thread_and_no_more() -> None:
    """This can fail only on a machine whose default is more than one thread."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    ended = subprocess.run(
        [sys.executable, "-c", ONE_THREAD],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(ended.stdout) == 1


# Who used the processors


class Machine:
    """Stands in for the clocks and for what the system reports about its processors."""

    def __init__(self) -> None:
        self.wall = self.process = self.thread = self.others = 0.0

    def perf_counter(self) -> float:
        return self.wall

    def process_time(self) -> float:
        return self.process

    def thread_time(self) -> float:
        return self.thread

    def cpu_times(self) -> tuple[float, ...]:
        busy = self.process + self.others

        class Times(tuple[float, ...]):
            idle, iowait, guest = 1000.0, 50.0, 3.0

        # The time of guests is contained in that of users.
        return Times((busy - 7.0, 4.0, 3.0, Times.idle, Times.iowait, Times.guest))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(timing, "time", machine)
    monkeypatch.setattr(timing, "psutil", SimpleNamespace(cpu_times=machine.cpu_times))
    return machine


def test_the_work_of_others_is_that_of_the_machine_less_ones_own(machine: Machine) -> None:
    machine.wall, machine.process, machine.others = 5.0, 3.0, 100.0
    stopwatch = Stopwatch()
    machine.wall, machine.process, machine.thread, machine.others = 15.0, 11.0, 4.0, 125.0
    read = stopwatch.read()
    assert read == Usage(wall=10.0, process=8.0, thread=4.0, others=25.0)
    assert read.load == 2.5


def test_usages_add_up() -> None:
    assert Usage(1, 2, 3, 4) + Usage(10, 20, 30, 40) == Usage(11, 22, 33, 44)


def test_a_moment_has_no_load() -> None:
    assert Usage(wall=0.05, others=0.02).load is None
    assert Usage().load is None


@pytest.mark.parametrize(
    ("wall", "thread", "share"), [(10, 10, 0), (10, 9, 0.1), (10, 10.1, 0), (0, 0, 0)]
)
def test_a_thread_waits_while_it_has_no_processor(wall: float, thread: float, share: float) -> None:
    assert waited(wall, thread) == pytest.approx(share)
