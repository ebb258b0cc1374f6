"""Measuring finished networks again: one at a time, alone on their device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from harness.costs.exclusive_device import device_lock, wait_until_idle
from harness.costs.timing import BUSY
from harness.engine.final_costs import measure_elsewhere
from harness.errors import RequestError, RunFailed
from harness.network import plan_of
from harness.output import Report
from harness.record import Record
from harness.registry import Registry
from harness.results import provenance
from harness.results.measured import awaits_measurement
from harness.signals import Stop
from harness.storage.measurements import save_measurement
from harness.storage.store import Store

PATIENCE = 60.0
"""Seconds to wait for an idle device, unless the user says otherwise."""

BATCH_SIZES = (1, 8, 64)
"""Batch sizes to time besides that of the recipe, unless the user says otherwise."""


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
    *,
    missing: bool = False,
) -> dict[str, Any] | None:
    """Measure the network of a finished run, and store the measurement beside its record.

    Only one process of the machine at a time does so on a device.

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
        missing: measure it only if neither its run nor another process has done so.

    Returns:
        The measurement; None if it is not missing.

    Raises:
        RequestError: the task builds another network today, or a file is missing.
        RunFailed: the measurement failed.
        Interrupted: the process was asked to stop.
    """
    plan = plan_of(record, registry, data_folder)
    torch.set_flush_denormal(True)  # as in the process of a run, which is of the same machine
    with device_lock(device, report, stop):
        if missing and not awaits_measurement(record, folder):
            return None
        busy = wait_until_idle(device, patience, report, stop)
        cost = measure_elsewhere(folder, plan, registry.plugins, device, stop, batch_sizes)
    if cost["step_ms"] is None:  # or it would hide an earlier measurement
        raise RunFailed(str(cost["reasons"]["step_ms"]))
    if device.type == "cuda" and busy > BUSY:  # no clock of the GPU shows other work
        times = ("step_ms", "inference_ms", *(("by_length",) if "by_length" in cost else ()))
        cost["disturbed"] = dict.fromkeys(times, round(busy, 3))
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


def measure_runs(
    folders: Iterable[Path],
    registry: Registry,
    device: torch.device,
    data_folder: Path,
    report: Report,
    stop: Stop,
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    patience: float = PATIENCE,
    missing: bool = False,
) -> Iterator[tuple[Path, dict[str, Any] | None, str]]:
    """Measure the networks of finished runs one after the other; see `measure_run`.

    Yields:
        Each run's folder and measurement; None for one that is not missing or failed, and then
        the reason why it failed, or an empty text.

    Raises:
        Interrupted: the process was asked to stop.
    """
    for folder in folders:
        try:
            measurement = measure_run(
                folder,
                Store(folder.parent).find(folder.name),
                registry,
                device,
                batch_sizes,
                data_folder,
                patience,
                report,
                stop,
                missing=missing,
            )
        except (RequestError, RunFailed) as error:
            yield folder, None, str(error)
        else:
            yield folder, measurement, ""
