"""A comparison of two sides that were measured in one run.

Nothing here imports torch, whose memory would count as that of what is measured in a new process.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Comparison:
    """One line of ``python -m benchmarks.speed``: smaller is better.

    For an absolute limit ``theirs`` is the allowed value and ``limit`` is 1.
    """

    name: str
    ours: float
    theirs: float
    unit: str
    limit: float | None
    """The ratio above which the figure falls short; None where it is only reported."""

    @property
    def ratio(self) -> float:
        """Ours over theirs."""
        return self.ours / self.theirs

    @property
    def falls_short(self) -> bool:
        """Whether the ratio is above its limit."""
        return self.limit is not None and self.ratio > self.limit


def alternate(
    first: Callable[[], object], second: Callable[[], object], rounds: int
) -> tuple[float, float]:
    """Return the median seconds of two calls that take turns, after one warm-up each.

    What else the machine does then meets both alike.
    """
    sides: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for call, seconds in zip((first, second), sides, strict=True):
            began = time.perf_counter()
            call()
            if number > 0:
                seconds.append(time.perf_counter() - began)
    return statistics.median(sides[0]), statistics.median(sides[1])


def least_processor_time(repetitions: int, *actions: Callable[[], None]) -> list[float]:
    """Return the least processor time of each action in seconds; they take turns.

    On one thread that is how long it takes when nobody else wants the core: waiting for one is
    not counted, and whatever else a busy machine does can only add.
    """
    seconds: list[list[float]] = [[] for _ in actions]
    for _ in range(repetitions):
        for action, times in zip(actions, seconds, strict=True):
            start = time.process_time()
            action()
            times.append(time.process_time() - start)
    return [min(times) for times in seconds]


def in_new_process(
    function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
) -> Result:
    """Return what a function of a module returns in a process that has done nothing else."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *args, **kwargs).result()
