"""The costs of a finished network, measured in a process that has done nothing else.

That process has to import everything once more, which takes most of the time of a smoke run. So
those are measured in the process of the run, and the record says so. Nothing but the times can
tell the difference.
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
from harness.record import Cost, fields
from harness.registry import Registry
from harness.signals import Stop, deaf
from harness.spec import Plan
from harness.storage.store import WEIGHTS
from harness.task import Batch
from harness.training.optimiser import build_optimiser
from harness.training.precision import Precision
from harness.training.trainer import update
from harness.units import all_masks

MEASURED = tuple(name for name, field in fields(Cost).items() if field.of == "network")
"""The costs of a finished network, by their keys in the record."""

OWN_PROCESS, RUNS_PROCESS = "a process of its own", "the process of the run"
"""Where the measuring was done."""


def final_costs(
    folder: Path, plan: Plan, plugins: Sequence[Path], device: torch.device, stop: Stop
) -> dict[str, Any]:
    """Return the costs of a finished network, and a reason for each that could not be measured.

    Raises:
        Interrupted: the process was asked to stop.
        RunFailed: the measuring failed.
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
    """Return what `measure` returns in a new process, and a reason for what is missing there.

    Raises:
        Interrupted: the process was asked to stop.
        RunFailed: the measuring failed.
    """
    if plan.task.has_changed:
        reason = f"the code of the task {plan.task.name!r} has changed since the run began"
        return {**dict.fromkeys(MEASURED), "reasons": dict.fromkeys(MEASURED, reason)}
    context = multiprocessing.get_context("spawn")
    answers, answer = context.Pipe(duplex=False)
    arguments = (folder, plan, plugins, str(device), torch.get_num_threads())
    process = context.Process(target=_answer, args=(answer, arguments), daemon=True)
    # When the tracker of multiprocessing starts it unblocks signals, so it has to run before.
    resource_tracker.ensure_running()
    with deaf():
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
    """Send what was measured, or the traceback; without it the other end sees only silence."""
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
    """Load a finished network and return the costs of using it and of training it further.

    Times are those of the recipe's batch, in milliseconds: median and interquartile range, and
    beside them the processor time, and what shows whether something disturbed them. Memory is
    what a training step needs, the network included. Multiply-accumulates are of the inference
    of one sample.
    """
    # Imported here because the run itself can do without.
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
    """Return a network that has taken a few steps, the memory that they took, and who says so."""
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
    memory.start()  # what building the network took for a moment is no part of a step
    for _ in range(STEPS):
        step()
    return network, memory.peak(), "resident memory" if device.type == "cpu" else "allocator"


def _dense_macs(plan: Plan, network: Network, macs: int) -> int:
    """Return the multiply-accumulates of the network before anything was removed."""
    dense = build_task(plan, torch.device("cpu")).model()
    if dense_shapes(dense) == dense_shapes(network.model):
        return macs
    from harness.costs.operations import count_operations

    task = network.task
    sample = task.one_sample()
    return count_operations(dense, lambda: task.inference(dense.eval(), sample), {}).dense_macs


STEPS = 2
"""The first makes the optimiser's moments; from the second on steps are alike."""


def training_step(plan: Plan, network: Network, batch: Batch) -> Callable[[], None]:
    """Return what trains a network by one step of the recipe, on the same batch each time."""
    optimiser = build_optimiser(network.model.parameters(), plan.settings)
    units = tuple(network.units.values())
    clip = float(plan.settings["clip"])
    precision = Precision.of(plan.conditions)

    def step() -> None:
        network.model.train()
        update(network.task, network.model, optimiser, units, batch, clip, precision=precision)

    return step


def warm_up(plan: Plan, network: Network, batch: Batch) -> None:
    """Take steps with a network that is thrown away afterwards.

    In the first steps of a process, libraries load code and fill caches: 40 to 200 MB on a CPU,
    whatever the network, and on a GPU cuBLAS takes its workspace from torch's allocator. That is
    no cost of a method, and it depends on what the process did before. Measurements of memory
    begin with this rehearsal, after which the libraries hold what they will keep.
    """
    step = training_step(plan, network, batch)
    for _ in range(STEPS):
        step()
