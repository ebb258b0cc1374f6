"""How long a call takes once warm, and how much other work disturbed it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter as timer
from time import process_time, thread_time

import psutil
import torch

from harness.record import DISTURBED

_WARM_UPS = 10
_REPETITIONS = 50
_SHORTEST_SECONDS = 0.5
_FEWEST_REPETITIONS = 3


@dataclass(frozen=True)
class Timing:
    """Median and spread of a call's duration, in milliseconds."""

    median_ms: float
    interquartile_range_ms: float
    repetitions: int
    cpu_ms: float
    """Median processor time of all threads of the process; no measure of a GPU's work."""
    waited: float
    """The share of the median in which the calling thread had no processor."""
    load: float | None
    """How many processors other work kept busy; None if the time was too short to tell."""

    @property
    def disturbed(self) -> float | None:
        """The share of the time in which the thread waited, never 0; None if nothing disturbed it.

        It is at most `DISTURBED` if other work kept processors busy, but hardly any of those that
        the thread needed.
        """
        busy = self.load is not None and self.load > BUSY
        return max(round(self.waited, 3), 0.001) if busy or self.waited > DISTURBED else None


def time_call(
    call: Callable[[], object], device: torch.device, *, at_most_seconds: float = 10.0
) -> Timing:
    """Time single calls after a warm-up, and wait for the GPU after each.

    On a CPU, denormal numbers are flushed to zero: pruned networks can be full of them, and are
    then many times slower (pytorch issue 46180). Flushing is a property of a thread, which
    torch's workers inherit from the thread that starts them. If the calling thread or one of its
    workers does not flush, the call runs in a new thread with as many workers; so a
    ``torch.no_grad`` must be inside the call. Otherwise the call runs in the calling thread: with
    a second team of threads, OpenMP no longer waits actively, and calls take several times
    longer.

    Args:
        call: the call to time.
        device: where it computes.
        at_most_seconds: bound on the total time, warm-up included. Within it a call is repeated
            at least 50 times, and 3 times in any case.
    """
    if device.type == "cuda":

        def synchronised() -> float:
            torch.cuda.synchronize(device)
            return timer()

        with torch.cuda.device(device):
            return _time(call, synchronised, at_most_seconds)
    if _flushes():
        return _time(call, timer, at_most_seconds)
    with ThreadPoolExecutor(1, initializer=_prepare, initargs=(torch.get_num_threads(),)) as thread:
        return thread.submit(_time, call, timer, at_most_seconds).result()


def _flushes() -> bool:
    """Return whether this thread and all its workers flush denormals to zero."""
    return not bool(torch.full((2**20,), 1e-40).mul(0.5).any())


def _prepare(workers: int) -> None:
    torch.set_flush_denormal(True)
    torch.set_num_threads(workers)


def _time(call: Callable[[], object], clock: Callable[[], float], at_most_seconds: float) -> Timing:
    end = clock() + at_most_seconds
    for _ in range(_WARM_UPS):
        call()
        if clock() > end - 0.8 * at_most_seconds:
            break
    seconds: list[float] = []
    by_process: list[float] = []
    by_thread: list[float] = []
    stopwatch = Stopwatch()
    while len(seconds) < _REPETITIONS or sum(seconds) < _SHORTEST_SECONDS:
        if len(seconds) >= _FEWEST_REPETITIONS and clock() > end:
            break
        # Reading processor time takes a microsecond, so it is read outside the measured time.
        process, thread = process_time(), thread_time()
        began = clock()
        call()
        seconds.append(clock() - began)
        by_thread.append(thread_time() - thread)
        by_process.append(process_time() - process)
    lower, median, upper = statistics.quantiles(seconds, n=4, method="inclusive")
    return Timing(
        median_ms=1000 * median,
        interquartile_range_ms=1000 * (upper - lower),
        repetitions=len(seconds),
        cpu_ms=1000 * statistics.median(by_process),
        waited=waited(median, statistics.median(by_thread)),
        load=stopwatch.read().load,
    )


BUSY = 0.15
"""A machine counts as idle while other work keeps fewer processors busy."""
_SHORTEST_LOAD_SECONDS = 0.1


@dataclass(frozen=True)
class Usage:
    """Seconds of some work, by different clocks."""

    wall: float = 0.0
    process: float = 0.0
    """Processor time of all threads of the process."""
    thread: float = 0.0
    """Processor time of the thread that leads the work."""
    others: float = 0.0
    """Processor time of all other processes of the machine."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.wall + other.wall,
            self.process + other.process,
            self.thread + other.thread,
            self.others + other.others,
        )

    @property
    def load(self) -> float | None:
        """How many processors other work kept busy on average; None if the time was too short.

        The system counts processor time in hundredths of a second.
        """
        return round(self.others / self.wall, 2) if self.wall >= _SHORTEST_LOAD_SECONDS else None

    @property
    def share_of_others(self) -> float:
        """The share of other work in everything that the processors did."""
        busy = self.process + self.others
        return self.others / busy if busy > 0 else 0.0


def waited(wall: float, thread: float) -> float:
    """Return the share of a wall time in which the leading thread had no processor."""
    return max(0.0, 1 - thread / wall) if wall > 0 else 0.0


class Stopwatch:
    """Measures from its construction; read it in the thread that built it."""

    def __init__(self) -> None:
        self._busy = _busy_seconds()
        self._process, self._thread = time.process_time(), time.thread_time()
        self._wall = time.perf_counter()

    def read(self) -> Usage:
        """Return the usage so far."""
        wall = time.perf_counter() - self._wall
        thread, process = time.thread_time() - self._thread, time.process_time() - self._process
        others = max(0.0, _busy_seconds() - self._busy - process)
        return Usage(wall, process, thread, others)


def _busy_seconds() -> float:
    """Return the time that all processors of the machine have worked since it booted."""
    times = psutil.cpu_times()
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    # On Linux the time of guests is counted in the users' already.
    return float(sum(times) - guests - times.idle - getattr(times, "iowait", 0.0))
