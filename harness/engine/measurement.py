"""Measuring finished networks again: one at a time, alone on their device."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from harness.costs.timing import BUSY, Stopwatch
from harness.engine.final_costs import measure_elsewhere
from harness.errors import Interrupted, RunFailed
from harness.network import plan_of
from harness.record import Record
from harness.registry import Registry
from harness.results import provenance
from harness.signals import Stop
from harness.storage.measurements import save_measurement

BATCH_SIZES = (1, 8, 64)
"""Batch sizes that are timed unless others are asked for."""

_LOOK_SECONDS = 1.0

Report = Callable[[str], None]


def measure_run(
    folder: Path,
    record: Record,
    registry: Registry,
    device: torch.device,
    batch_sizes: Sequence[int],
    data_folder: Path,
    patience: float,
    report: Report,
    stop: Stop,
) -> dict[str, Any]:
    """Measure the network of a finished run, and store the measurement beside its record.

    Args:
        folder: the run's folder.
        record: its record.
        registry: finds task and units, and names plug-ins.
        device: where to measure.
        batch_sizes: further batch sizes to time.
        data_folder: where official data are.
        patience: seconds to wait for an idle device, before measuring all the same.
        report: receives lines of progress.
        stop: ends the waiting and the measurement.

    Raises:
        RequestError: the task builds another network today, or a file is missing.
        RunFailed: the measurement failed.
        Interrupted: the process was asked to stop.
    """
    plan = plan_of(record, registry, data_folder)
    with device_lock(device, report, stop):
        busy = wait_until_idle(device, patience, report, stop)
        cost = measure_elsewhere(folder, plan, registry.plugins, device, stop, batch_sizes)
    if device.type == "cuda" and busy > BUSY:  # no clock of the GPU shows other work
        cost["disturbed"] = dict.fromkeys(("step_ms", "inference_ms"), round(busy, 3))
    environment = provenance.environment(device)
    measurement = {
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": environment["machine"],
        "load_before": round(busy, 3),
        "environment": environment,
        "cost": cost,
    }
    save_measurement(folder, measurement)
    return measurement


@contextlib.contextmanager
def device_lock(device: torch.device, report: Report, stop: Stop) -> Iterator[None]:
    """Hold this machine's only lock for measuring on a device, whoever holds it now.

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
    """Wait for a device to become idle, and return how busy it was at last.

    Returns:
        The processors that other work kept busy; of a GPU, the share of the time in which it
        worked.

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
            report(f"{device} is busy ({busy:.2f}): this measurement will be marked as disturbed")
            return busy
        if not told:
            report(f"waiting up to {patience:g} s: {device} is busy ({busy:.2f})")
        told = True


def load_by_others(device: torch.device) -> float:
    """Return how busy other work keeps a device now; looking takes a second."""
    if device.type == "cuda":
        with contextlib.suppress(RuntimeError, ModuleNotFoundError):
            return torch.cuda.utilization(device) / 100
    stopwatch = Stopwatch()
    time.sleep(_LOOK_SECONDS)
    return stopwatch.read().load or 0.0
