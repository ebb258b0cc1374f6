"""The costs of a finished network, measured in a new process that has done nothing else.

The new process imports everything again, which would take most of the time of a smoke run. So
smoke runs are measured in their own process, and the record says so. Only the times can differ.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from harness.costs.memory import Allocations, Measured, PeakMemory
from harness.costs.meter import NO_PROCESSOR_TIME
from harness.costs.timing import DISTURBED, Stopwatch, time_call
from harness.errors import Interrupted, RunFailed
from harness.network import Network, build_task, load_network
from harness.prunable import dense_shapes
from harness.registry import Registry
from harness.signals import Stop, block_signals
from harness.spec import Plan
from harness.storage.store import WEIGHTS
from harness.task import Batch
from harness.training.optimiser import build_optimiser
from harness.training.precision import Precision
from harness.training.trainer import update
from harness.units import all_masks

MEASURED = (
    "step_ms",
    "step_ms_iqr",
    "step_cpu_ms",
    "inference_ms",
    "inference_ms_iqr",
    "inference_cpu_ms",
    "peak_step_bytes",
    "peak_step_method",
    "disk_bytes",
    "macs",
    "macs_effective",
    "macs_dense",
    "parameters",
)


OWN_PROCESS, RUNS_PROCESS = "a process of its own", "the process of the run"
"""In which process the network was measured."""


def final_costs(
    folder: Path, plan: Plan, plugins: Sequence[Path], device: torch.device, stop: Stop
) -> dict[str, Any]:
    """Return the costs of a finished network, with a reason for each that could not be measured.

    Raises:
        Interrupted: the process was asked to stop.
        RunFailed: the measurement failed.
    """
    if plan.spec.profile != "smoke":
        measured = measure_elsewhere(folder, plan, plugins, device, stop)
        return {**measured, "measured_in": OWN_PROCESS}
    try:
        measured = measure(folder, plan, plugins, str(device), torch.get_num_threads())
    except Exception as error:
        raise _failed(traceback.format_exc()) from error
    if stop.requested:
        raise Interrupted
    return {**measured, "measured_in": RUNS_PROCESS}


def _failed(details: str) -> RunFailed:
    what = details.rstrip().rpartition("\n")[2]
    return RunFailed(f"measuring the final network: {what}")


def measure_elsewhere(
    folder: Path, plan: Plan, plugins: Sequence[Path], device: torch.device, stop: Stop
) -> dict[str, Any]:
    """Call `measure` in a new process; a cost that it could not measure is None with a reason.

    Raises:
        Interrupted: the process was asked to stop.
        RunFailed: the measurement failed.
    """
    if plan.task.has_changed:
        reason = f"the code of the task {plan.task.name!r} has changed since the run began"
        return {**dict.fromkeys(MEASURED), "reasons": dict.fromkeys(MEASURED, reason)}
    context = multiprocessing.get_context("spawn")
    answers, answer = context.Pipe(duplex=False)
    arguments = (folder, plan, plugins, str(device), torch.get_num_threads())
    process = context.Process(target=_answer, args=(answer, arguments), daemon=True)
    # Started first, because it unblocks signals when it starts.
    resource_tracker.ensure_running()
    with block_signals():
        process.start()
    try:
        answer.close()
        while not answers.poll(0.1):
            if stop.requested:
                raise Interrupted
        measured: dict[str, Any] | str = answers.recv()
    except EOFError:
        reason = "the measuring process was killed"
        return {**dict.fromkeys(MEASURED), "reasons": dict.fromkeys(MEASURED, reason)}
    finally:
        process.kill()
        process.join()
    if isinstance(measured, str):
        raise _failed(measured) from RuntimeError(measured)
    return measured


def _answer(answer: Connection, arguments: tuple[Any, ...]) -> None:
    """Send the costs or the traceback; otherwise the parent would see only a closed pipe."""
    try:
        measured: dict[str, Any] | str = measure(*arguments)
    except Exception:
        measured = traceback.format_exc()
    # The parent process may have been killed in the meantime.
    with contextlib.suppress(BrokenPipeError):
        answer.send(measured)


def measure(
    folder: Path, plan: Plan, plugins: Sequence[Path], device_name: str, threads: int
) -> dict[str, Any]:
    """Load a finished network, and measure its inference and a further training step.

    Times are in milliseconds for one batch of the recipe's size: median, interquartile range and
    processor time, with the load that may have disturbed them. Memory is the peak of a training
    step, network included. Multiply-accumulates are those of inference on one sample.

    Args:
        folder: the run's folder.
        plan: the run's plan.
        plugins: the plug-in files that the run used.
        device_name: where to measure.
        threads: torch threads to use.
    """
    # Imported here because the process of a run does not need it.
    from harness.costs.operations import count_operations

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    device = torch.device(device_name)
    preparing = Stopwatch()
    registry = Registry(plugins)
    batch = build_task(plan, device).scoring_batches(plan.spec.seed)[0]

    def load() -> Network:
        return load_network(folder, plan, registry, device)

    network, peak, method = _step_memory(plan, load, batch, device)
    task, model = network.task, network.model

    def inference() -> None:
        model.eval()
        with torch.no_grad():
            task.inference(model, batch)

    load_before = preparing.read().load
    seconds = 1.0 if plan.spec.profile == "smoke" else 10.0
    calls = {"step_ms": training_step(plan, network, batch), "inference_ms": inference}
    timings = {
        name: time_call(call, device, at_most_seconds=seconds) for name, call in calls.items()
    }
    on_processor = device.type == "cpu"
    masks = all_masks(network.units.values())
    counted = network
    if device.type != "cpu":
        counted = load_network(folder, plan, registry, torch.device("cpu"))
    sample = counted.task.one_sample()
    operations = count_operations(
        counted.model, lambda: counted.task.inference(counted.model.eval(), sample), masks
    )
    step, use = timings["step_ms"], timings["inference_ms"]
    reasons = {"peak_step_bytes": peak.reason} if peak.reason else {}
    if not on_processor:
        reasons |= dict.fromkeys(("step_cpu_ms", "inference_cpu_ms"), NO_PROCESSOR_TIME)
    return {
        "step_ms": step.median_ms,
        "step_ms_iqr": step.interquartile_range_ms,
        "step_cpu_ms": step.cpu_ms if on_processor else None,
        "inference_ms": use.median_ms,
        "inference_ms_iqr": use.interquartile_range_ms,
        "inference_cpu_ms": use.cpu_ms if on_processor else None,
        "peak_step_bytes": peak.value,
        "peak_step_method": method,
        "disk_bytes": (folder / WEIGHTS).stat().st_size,
        "macs": operations.dense_macs,
        "macs_effective": operations.effective_macs,
        "macs_dense": _dense_macs(plan, counted, operations.dense_macs),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "load": {
            name: {"before": load_before, "during": timing.load} for name, timing in timings.items()
        },
        "disturbed": {
            name: round(timing.waited, 3)
            for name, timing in timings.items()
            if on_processor and timing.waited > DISTURBED
        },
        "reasons": reasons,
    }


def _step_memory(
    plan: Plan, load: Callable[[], Network], batch: Batch, device: torch.device
) -> tuple[Network, Measured, str]:
    """Return a network after a few steps, the peak memory of these, and how it was measured."""
    if device.type == "cpu":
        with Allocations() as allocations:
            network = load()
            step = training_step(plan, network, batch)
            for _ in range(STEPS):
                with allocations.counting():
                    step()
        peak = allocations.peak()
        if peak.value is not None:
            return network, peak, "allocator"
    warm_up(plan, load(), batch)
    memory = PeakMemory(device)
    network = load()
    step = training_step(plan, network, batch)
    memory.start()  # leaves out the temporary memory of building the network
    for _ in range(STEPS):
        step()
    return network, memory.peak(), "resident memory" if device.type == "cpu" else "allocator"


def _dense_macs(plan: Plan, network: Network, macs: int) -> int:
    """Return the multiply-accumulates of the network before pruning."""
    dense = build_task(plan, torch.device("cpu")).model()
    if dense_shapes(dense) == dense_shapes(network.model):
        return macs
    from harness.costs.operations import count_operations

    task = network.task
    sample = task.one_sample()
    return count_operations(dense, lambda: task.inference(dense.eval(), sample), {}).dense_macs


STEPS = 2
"""The first step creates the optimizer's moments; all later steps are alike."""


def training_step(plan: Plan, network: Network, batch: Batch) -> Callable[[], None]:
    """Return a function that takes one training step, on the same batch each time."""
    optimiser = build_optimiser(network.model.parameters(), plan.settings)
    units = tuple(network.units.values())
    clip = float(plan.settings["clip"])
    precision = Precision.of(plan.conditions)

    def step() -> None:
        network.model.train()
        update(network.task, network.model, optimiser, units, batch, clip, precision=precision)

    return step


def warm_up(plan: Plan, network: Network, batch: Batch) -> None:
    """Take a few steps with a network that is discarded afterwards.

    In the first steps of a process libraries load code and fill caches: 40 to 200 MB on a CPU for
    any network, and cuBLAS's workspace on a GPU. These are not costs of a method. After the
    warm-up the libraries hold all that they will keep, and memory can be measured.
    """
    step = training_step(plan, network, batch)
    for _ in range(STEPS):
        step()
