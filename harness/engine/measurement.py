"""Measuring finished networks again: one at a time, alone on their device."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from harness.costs.exclusive_device import device_lock, wait_until_idle
from harness.costs.timing import BUSY
from harness.engine.final_costs import measure_elsewhere
from harness.errors import RunFailed
from harness.network import plan_of
from harness.output import Report
from harness.record import Record
from harness.registry import Registry
from harness.results import provenance
from harness.signals import Stop
from harness.storage.measurements import save_measurement


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
        data_folder: the folder that tasks read data from.
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
    if cost["step_ms"] is None:  # or it would hide an earlier measurement
        raise RunFailed(str(cost["reasons"]["step_ms"]))
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
