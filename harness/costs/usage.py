"""What the processor did meanwhile: a time that was measured is worth what it says.

Wall time alone cannot tell a slow network from a busy machine. So processor time is measured
beside it. The processor time of all threads together says what a call costs, and is no measure
of disturbance: with several threads it lies anywhere between the wall time and so many times as
much, because OpenMP's workers sleep in what is not parallel, or spin while they wait. What tells
is the thread that makes the calls: it does the serial parts and its share of the parallel ones.
On a quiet machine it is never without a processor, with one thread and with several: while it
waits for a worker that is a little behind it spins. If it is sent away, or a worker is and it has
to sleep meanwhile, it has less processor time than the clock shows. (A library whose threads spin
for long, as Intel's OpenMP does for 0.2 s, hides the second; the load of others still shows it.)

On a GPU the processor only hands out the work, and its time says nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil

DISTURBED = 0.05
"""A figure is called disturbed above this share: of a time in which the run had no processor, of
an energy that may be others'."""
_SHORTEST_SECONDS = 0.1


@dataclass(frozen=True)
class Usage:
    """Seconds of a stretch of work, by different clocks."""

    wall: float = 0.0
    process: float = 0.0
    """Processor time of all threads of the process."""
    thread: float = 0.0
    """Processor time of the thread that does the work and lets others help."""
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
        """How many processors were busy with others' work on average; None of a moment.

        The system counts that work in hundredths of a second.
        """
        return round(self.others / self.wall, 2) if self.wall >= _SHORTEST_SECONDS else None

    @property
    def share_of_others(self) -> float:
        """The share of others' work in all that the processors did."""
        busy = self.process + self.others
        return self.others / busy if busy > 0 else 0.0


def waited(wall: float, thread: float) -> float:
    """Return the share of a wall time in which the working thread had no processor."""
    return max(0.0, 1 - thread / wall) if wall > 0 else 0.0


class Stopwatch:
    """Measures from when it is built. To be read in the thread that built it."""

    def __init__(self) -> None:
        self._busy = _busy_seconds()
        self._process, self._thread = time.process_time(), time.thread_time()
        self._wall = time.perf_counter()

    def read(self) -> Usage:
        """Return what was used so far."""
        wall = time.perf_counter() - self._wall
        thread, process = time.thread_time() - self._thread, time.process_time() - self._process
        others = max(0.0, _busy_seconds() - self._busy - process)
        return Usage(wall, process, thread, others)


def _busy_seconds() -> float:
    """Return what all processors of the machine have worked since it began."""
    times = psutil.cpu_times()
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    # On Linux the time of guests is counted in the users' already.
    return float(sum(times) - guests - times.idle - getattr(times, "iowait", 0.0))
