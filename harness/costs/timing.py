"""How long a call takes, warm."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

# Torch's timer brings its compiler along, which complains of a machine with nvcc and no GPU.
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)

from torch.utils.benchmark import timer  # noqa: E402 - silenced first

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


def time_call(
    call: Callable[[], object], device: torch.device, *, at_most_seconds: float = 10.0
) -> Timing:
    """Time single calls after warming up, with the clock of torch.utils.benchmark.

    That clock waits for the GPU. (Its ``Timer`` would time blocks of ten calls up to some 10 ms
    each, and return the spread of their means.)

    On a CPU, numbers too small for the normal format are flushed to zero: pruned networks can
    be full of them, and are then many times slower (pytorch issue 46180). The call runs in a
    thread of its own, because this is a property of a thread, which torch's workers inherit
    from the thread that starts them: workers that exist already would not flush. A
    ``torch.no_grad`` must therefore stand inside the call. The thread has as many workers as the
    caller's: unless it is told, the libraries below torch take one for each core.

    Args:
        call: what is timed.
        device: where it computes.
        at_most_seconds: bound on the time spent, warm-up included. Within it there are at least
            50 repetitions, and 3 in any case.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            return _time(call, at_most_seconds)
    with ThreadPoolExecutor(1, initializer=_prepare, initargs=(torch.get_num_threads(),)) as thread:
        return thread.submit(_time, call, at_most_seconds).result()


def _prepare(workers: int) -> None:
    torch.set_flush_denormal(True)
    torch.set_num_threads(workers)


def _time(call: Callable[[], object], at_most_seconds: float) -> Timing:
    end = timer() + at_most_seconds
    for _ in range(_WARM_UPS):
        call()
        if timer() > end - 0.8 * at_most_seconds:
            break
    seconds: list[float] = []
    while len(seconds) < _REPETITIONS or sum(seconds) < _SHORTEST_SECONDS:
        if len(seconds) >= _FEWEST_REPETITIONS and timer() > end:
            break
        began = timer()
        call()
        seconds.append(timer() - began)
    lower, median, upper = statistics.quantiles(seconds, n=4, method="inclusive")
    return Timing(1000 * median, 1000 * (upper - lower), len(seconds))
