"""The costs of a finished network, measured in a process that has done nothing else."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch

from harness.costs.memory import PeakMemory
from harness.network import WEIGHTS, build_task, load_network
from harness.optimiser import build_optimiser
from harness.registry import Registry
from harness.spec import Plan
from harness.training import update

MEASURED = (
    "step_ms",
    "step_ms_iqr",
    "inference_ms",
    "inference_ms_iqr",
    "peak_step_bytes",
    "disk_bytes",
    "macs",
    "macs_effective",
    "parameters",
)


def measure_elsewhere(
    folder: Path, plan: Plan, plugins: Sequence[Path], device: torch.device
) -> dict[str, Any]:
    """Return what `measure` returns in a new process, and a reason for what is missing there."""
    context = multiprocessing.get_context("spawn")
    threads = torch.get_num_threads()
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as process:
        task = process.submit(measure, folder, plan, plugins, str(device), threads)
        try:
            return task.result()
        except BrokenProcessPool:
            reason = "the measuring process was killed"
            return {**dict.fromkeys(MEASURED), "reasons": dict.fromkeys(MEASURED, reason)}


def measure(
    folder: Path, plan: Plan, plugins: Sequence[Path], device_name: str, threads: int
) -> dict[str, Any]:
    """Load a finished network and return the costs of using it and of training it further.

    Times are those of the recipe's batch, in milliseconds: median and interquartile range.
    Memory is what a training step needs beyond what the process held before the network was
    built. Multiply-accumulates are of the inference of one sample.
    """
    # Imported here because these take half a second, which the run itself is spared.
    from harness.costs.operations import count_operations
    from harness.costs.timing import time_call

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    device = torch.device(device_name)
    registry = Registry(plugins)
    batch = build_task(plan, device).scoring_batches(plan.spec.seed)[0]
    memory = PeakMemory(device)
    network = load_network(folder, plan, registry, device)
    task, model, units = network.task, network.model, tuple(network.units.values())
    optimiser = build_optimiser(model.parameters(), plan.settings)
    clip = float(plan.settings["clip"])

    def step() -> None:
        model.train()
        update(task, model, optimiser, units, batch, clip)

    def inference() -> None:
        model.eval()
        with torch.no_grad():
            task.inference(model, batch)

    step()
    step()
    peak = memory.peak()
    seconds = 1.0 if plan.spec.profile == "smoke" else 10.0
    step_time = time_call(step, device, at_most_seconds=seconds)
    inference_time = time_call(inference, device, at_most_seconds=seconds)
    masks = {name: mask for each in units for name, mask in each.masks().items()}
    counted = network
    if device.type != "cpu":
        counted = load_network(folder, plan, registry, torch.device("cpu"))
    sample = counted.task.one_sample()
    operations = count_operations(
        counted.model, lambda: counted.task.inference(counted.model.eval(), sample), masks
    )
    return {
        "step_ms": step_time.median_ms,
        "step_ms_iqr": step_time.interquartile_range_ms,
        "inference_ms": inference_time.median_ms,
        "inference_ms_iqr": inference_time.interquartile_range_ms,
        "peak_step_bytes": peak.value,
        "disk_bytes": (folder / WEIGHTS).stat().st_size,
        "macs": operations.dense_macs,
        "macs_effective": operations.effective_macs,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "reasons": {"peak_step_bytes": peak.reason} if peak.reason else {},
    }
