"""The costs of a finished network, measured in a new process that has done nothing else.

The new process imports everything again, which would take most of the time of a smoke run. So
smoke runs are measured in their own process, and the record says so. Only the times can differ.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from harness.costs.memory import Allocations, Measured, PeakMemory
from harness.costs.meter import NO_PROCESSOR_TIME
from harness.costs.timing import Stopwatch
from harness.engine.network_timing import (
    STEPS,
    inference_pass,
    lengths_taken,
    network_times,
    sparse_times,
    times_by_length,
    training_step,
    warm_up,
)
from harness.errors import Interrupted, RequestError, RunFailed
from harness.importing import without_main_module
from harness.network import Network, build_task, load_network
from harness.prunable import dense_shapes
from harness.record import Cost, fields
from harness.registry import Registry
from harness.results.measured import NOT_YET, OWN_PROCESS, RUNS_PROCESS
from harness.signals import Stop, block_signals
from harness.spec import Plan
from harness.storage.store import WEIGHTS
from harness.task import Batch
from harness.units import all_masks

MEASURED = tuple(
    name for name, field in fields(Cost).items() if field.of == "network" and name != "by_length"
)
"""The costs of a finished network that every task has, by their keys in the record."""

Measure = Callable[[Path, Plan, Sequence[Path], torch.device, Stop], dict[str, Any]]
"""Returns the costs of a finished network, as `final_costs` does."""

LATER = "left to a later measurement"
"""Why a cost that needs a quiet machine is missing from the record of a run."""


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
    with _failing_in_one_line():
        measured = measure(folder, plan, plugins, str(device), torch.get_num_threads())
    if stop.requested:
        raise Interrupted
    return {**measured, "measured_in": RUNS_PROCESS}


def exact_costs(
    folder: Path, plan: Plan, plugins: Sequence[Path], device: torch.device, stop: Stop
) -> dict[str, Any]:
    """Return the costs of a finished network that are counted; the others are left for later.

    They do not depend on what else the machine does, nor on the device.

    Raises:
        Interrupted: the process was asked to stop.
        RunFailed: the network cannot be loaded or used.
    """
    with _failing_in_one_line():
        network = load_network(folder, plan, Registry(plugins), torch.device("cpu"))
        exact, why_not_exact = _exact(folder, plan, network)
    if stop.requested:
        raise Interrupted
    later = [name for name in MEASURED if name not in exact]
    reasons = {**dict.fromkeys(later, LATER), **why_not_exact}
    return {**dict.fromkeys(later), **exact, "measured_in": NOT_YET, "reasons": reasons}


@contextlib.contextmanager
def _failing_in_one_line() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise _failed(traceback.format_exc()) from error


def _failed(details: str) -> RunFailed:
    what = details.rstrip().rpartition("\n")[2]
    return RunFailed(f"measuring the final network: {what}")


def measure_elsewhere(
    folder: Path,
    plan: Plan,
    plugins: Sequence[Path],
    device: torch.device,
    stop: Stop,
    batch_sizes: Sequence[int] = (),
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
    arguments = (folder, plan, plugins, str(device), torch.get_num_threads(), batch_sizes)
    process = context.Process(target=_answer, args=(answer, arguments), daemon=True)
    # Started first, because it unblocks signals when it starts.
    resource_tracker.ensure_running()
    with block_signals(), without_main_module():
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
    folder: Path,
    plan: Plan,
    plugins: Sequence[Path],
    device_name: str,
    threads: int,
    batch_sizes: Sequence[int] = (),
) -> dict[str, Any]:
    """Load a finished network, and measure its inference and a further training step.

    Times are in milliseconds for one batch of the recipe's size: median, interquartile range and
    processor time, with the load that may have disturbed them. Memory is the peak of a training
    step, and of inference, network included. Multiply-accumulates are those of inference on one
    sample.

    Args:
        folder: the run's folder.
        plan: the run's plan.
        plugins: the plug-in files that the run used.
        device_name: where to measure.
        threads: torch threads to use.
        batch_sizes: further batch sizes to time, under ``by_batch_size`` in the result.
    """
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    device = torch.device(device_name)
    preparing = Stopwatch()
    registry = Registry(plugins)
    batch = build_task(plan, device).scoring_batches(plan.spec.seed)[0]

    def load() -> Network:
        return load_network(folder, plan, registry, device)

    network, step_peak, method = _step_memory(plan, load, batch, device)
    inference_peak = _inference_memory(network, batch, device)
    load_before = preparing.read().load
    seconds = 1.0 if plan.spec.profile == "smoke" else 10.0
    costs = network_times(plan, network, batch, seconds)
    times = _by_length(network, batch, seconds, costs, inference_peak)
    sparse, why_not_sparse = sparse_times(plan, network, batch, seconds, costs)
    for during in costs["load"].values():
        during["before"] = load_before
    counted = network
    if device.type != "cpu":
        counted = load_network(folder, plan, registry, torch.device("cpu"))
    exact, why_not_exact = _exact(folder, plan, counted)
    if "by_length" in exact:
        exact["by_length"] = _joined(times, exact["by_length"])
    peaks = {"peak_step_bytes": step_peak, "peak_inference_bytes": inference_peak}
    reasons = {name: peak.reason for name, peak in peaks.items() if peak.reason}
    reasons |= why_not_sparse | why_not_exact
    if device.type != "cpu":
        reasons |= dict.fromkeys(("step_cpu_ms", "inference_cpu_ms"), NO_PROCESSOR_TIME)
    by_batch_size = {
        str(size): _with_batch_size(plan, network, size, seconds) for size in batch_sizes
    }
    return {
        **costs,
        **{name: peak.value for name, peak in peaks.items()},
        "peak_step_method": method,
        **sparse,
        **exact,
        "reasons": reasons,
        **({"by_batch_size": by_batch_size} if by_batch_size else {}),
    }


def _by_length(
    network: Network, batch: Batch, seconds: float, costs: dict[str, Any], peak: Measured
) -> dict[str, dict[str, Any]]:
    """Measure the inference of a batch at each length that its task names, if it names any.

    Args:
        network: the network.
        batch: the batch.
        seconds: how long to time all lengths together.
        costs: has the times of the batch, and gets what other work did meanwhile.
        peak: the peak memory of the batch.

    Returns:
        Times and memory, by length.
    """
    shortened, _ = lengths_taken(network, batch)
    if not shortened:
        return {}
    found = {}
    for length, times in times_by_length(network, batch, shortened, seconds, costs).items():
        shorter = shortened[length]
        memory = peak
        if shorter is not batch:
            memory = _inference_memory(network, shorter, network.task.device)
        found[str(length)] = {**times, "peak_inference_bytes": memory.value}
    return found


def _joined(
    first: Mapping[str, dict[str, Any]], second: Mapping[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the costs by length of both, the shortest length first."""
    lengths = sorted({*first, *second}, key=int)
    return {each: {**first.get(each, {}), **second.get(each, {})} for each in lengths}


def _exact(folder: Path, plan: Plan, network: Network) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the costs of a network on the CPU that are counted, by their keys in the record.

    Returns:
        The costs, and why those of some length are missing.
    """
    # Imported here because the process of a run need not do it before it has ended.
    from harness.costs.operations import Operations, count_operations

    def operations_of(sample: Batch) -> Operations:
        return count_operations(
            network.model,
            lambda: network.task.inference(network.model.eval(), sample),
            all_masks(network.units.values()),
        )

    sample = network.task.one_sample()
    operations = operations_of(sample)
    shortened, reasons = lengths_taken(network, sample)
    by_length = {
        str(length): {"macs": operations_of(shorter).dense_macs}
        for length, shorter in shortened.items()
    }
    exact = {
        "disk_bytes": (folder / WEIGHTS).stat().st_size,
        "macs": operations.dense_macs,
        "macs_effective": operations.effective_macs,
        "macs_dense": _dense_macs(plan, network, operations.dense_macs),
        "parameters": sum(parameter.numel() for parameter in network.model.parameters()),
        **({"by_length": by_length} if by_length else {}),
    }
    return exact, reasons


def _with_batch_size(plan: Plan, network: Network, size: int, seconds: float) -> dict[str, Any]:
    """Time a network with batches of another size; a reason if the task has none of that size."""
    settings = plan.task.build_settings({**plan.settings, "batch_size": size})
    resized = replace(plan, settings=settings)
    try:
        task = build_task(resized, network.task.device)
        batch = task.scoring_batches(plan.spec.seed)[0]
    except (RequestError, RunFailed, ValueError) as error:
        return {"reason": f"no batch of {size}: {error}"}
    network = Network(task, network.model.eval(), network.units)
    try:
        with torch.no_grad():
            rows, rows_of_one = (
                len(task.outputs(network.model, each)) for each in (batch, task.one_sample())
            )
    except (RuntimeError, ValueError) as error:  # the memory does not suffice, for example
        return {"reason": f"no batch of {size}: {_first_line(error)}"}
    if rows != size * rows_of_one:
        return {"reason": f"no batch of {size}: the largest has {rows / rows_of_one:g} samples"}
    peak = _inference_memory(network, batch, task.device)
    reasons = {}
    try:
        training_step(resized, network, batch)()
    except (RuntimeError, ValueError) as error:  # batch normalization needs more than one value
        reason = f"no step on a batch of {size}: {_first_line(error)}"
        reasons = {"step_ms": reason, "step_sparse_ms": reason}
    costs = network_times(resized, network, batch, seconds, with_step=not reasons)
    sparse, why_not_sparse = sparse_times(
        resized, network, batch, seconds, costs, with_step=not reasons
    )
    reasons = {**why_not_sparse, **reasons}
    return {
        **costs,
        "peak_inference_bytes": peak.value,
        **sparse,
        **({"reasons": reasons} if reasons else {}),
    }


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _inference_memory(network: Network, batch: Batch, device: torch.device) -> Measured:
    """Return the peak memory of inference: what it allocates, and the network itself."""
    model, inference = network.model, inference_pass(network, batch)
    held = sum(
        tensor.untyped_storage().nbytes()
        for tensor in {id(t): t for t in (*model.parameters(), *model.buffers())}.values()
    )
    inference()  # fills caches
    if device.type == "cuda":
        memory = PeakMemory(device)
        memory.start()
        inference()
        peak = memory.peak()
    else:
        with Allocations() as allocations, allocations.counting():
            inference()
        peak = allocations.peak()
    return peak if peak.value is None else Measured(int(peak.value) + held)


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
