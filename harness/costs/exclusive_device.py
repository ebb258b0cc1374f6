"""Measuring on a device while nothing else uses it."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from harness.costs.timing import BUSY, Stopwatch
from harness.errors import Interrupted, RunFailed
from harness.output import Report
from harness.signals import Stop
from harness.text import percent, several

_LOOK_SECONDS = 1.0


@contextlib.contextmanager
def device_lock(device: torch.device, report: Report, stop: Stop) -> Iterator[None]:
    """Hold the machine-wide lock for measuring on a device; wait for other holders.

    Raises:
        Interrupted: the process was asked to stop while it waited.
        RunFailed: the lock's file cannot be written.
    """
    name = str(device).replace(":", "-")
    path = Path(tempfile.gettempdir()) / f"pruning-benchmark-measuring-{name}.lock"
    lock = FileLock(path, mode=0o666)
    waits = False
    while True:
        try:
            lock.acquire(timeout=0.2)
            break
        except Timeout:
            if not waits:
                report(f"waiting: another process is measuring on {device}")
            waits = True
            if stop.requested:
                raise Interrupted from None
        except OSError as error:
            raise RunFailed(f"cannot lock {path}: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def wait_until_idle(device: torch.device, patience: float, report: Report, stop: Stop) -> float:
    """Wait for a device to become idle, and return how busy it was when the wait ended.

    Returns:
        The processors that other work kept busy; of a GPU, the fraction of the time in which it
        was busy.

    Raises:
        Interrupted: the process was asked to stop.
    """
    end = time.monotonic() + patience
    told = False
    while True:
        busy = load_by_others(device)
        if stop.requested:
            raise Interrupted
        if busy <= BUSY:
            return busy
        if time.monotonic() >= end:
            report(f"{_busy(device, busy)}: this measurement will be marked as disturbed")
            return busy
        if not told:
            report(f"waiting up to {patience:g} s: {_busy(device, busy)}")
        told = True


def _busy(device: torch.device, busy: float) -> str:
    if device.type == "cuda":
        return f"other programs use {device} for {percent(busy)} of the time"
    return f"other programs keep {several(round(busy, 2), 'processor')} busy"


def load_by_others(device: torch.device) -> float:
    """Return how busy other work keeps a device now; looking takes a second."""
    if device.type == "cuda":
        with contextlib.suppress(RuntimeError, ModuleNotFoundError):
            return torch.cuda.utilization(device) / 100
    stopwatch = Stopwatch()
    time.sleep(_LOOK_SECONDS)
    return stopwatch.read().load or 0.0
