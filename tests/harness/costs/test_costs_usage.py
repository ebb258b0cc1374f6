from __future__ import annotations

from types import SimpleNamespace

import pytest

from harness.costs import timing as usage
from harness.costs.timing import Stopwatch, Usage, waited


class Machine:
    """Stands in for the clocks and for what the system says of its processors."""

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

        # Guests are counted as users as well.
        return Times((busy - 7.0, 4.0, 3.0, Times.idle, Times.iowait, Times.guest))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(usage, "time", machine)
    monkeypatch.setattr(usage, "psutil", SimpleNamespace(cpu_times=machine.cpu_times))
    return machine


def test_the_work_of_others_is_what_is_left_of_the_machines(machine: Machine) -> None:
    machine.wall, machine.process, machine.others = 5.0, 3.0, 100.0
    stopwatch = Stopwatch()
    machine.wall, machine.process, machine.thread, machine.others = 15.0, 11.0, 4.0, 125.0
    read = stopwatch.read()
    assert read == Usage(wall=10.0, process=8.0, thread=4.0, others=25.0)
    assert read.load == 2.5


def test_stretches_add_up() -> None:
    assert Usage(1, 2, 3, 4) + Usage(10, 20, 30, 40) == Usage(11, 22, 33, 44)


def test_of_a_moment_there_is_no_load() -> None:
    assert Usage(wall=0.05, others=0.02).load is None
    assert Usage().load is None


@pytest.mark.parametrize(
    ("wall", "thread", "share"), [(10, 10, 0), (10, 9, 0.1), (10, 10.1, 0), (0, 0, 0)]
)
def test_what_a_thread_has_no_processor_for_it_has_waited(
    wall: float, thread: float, share: float
) -> None:
    assert waited(wall, thread) == pytest.approx(share)
