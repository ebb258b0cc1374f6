"""The costs of a finished network, measured in a process that has done nothing else."""

from __future__ import annotations

import contextlib
import multiprocessing
import traceback
from collections.abc import Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from harness.costs.memory import PeakMemory
from harness.costs.rehearsal import STEPS, rehearse, training_step
from harness.durability.stop import Stop, deaf
from harness.errors import Interrupted, RunFailed
from harness.network import Network, build_task, load_network
from harness.pruning.sparsity import dense_shapes
from harness.registry import Registry
from harness.results.store import WEIGHTS
from harness.spec import Plan
from harness.units import all_masks

MEASURED = (
    "step_ms",
    "step_ms_iqr",
    "inference_ms",
    "inference_ms_iqr",
    "peak_step_bytes",
    "disk_bytes",
    "macs",
    "macs_effective",
    "macs_dense",
    "parameters",
)


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
        what = measured.rstrip().rpartition("\n")[2]
        raise RunFailed(f"measuring the final network: {what}") from RuntimeError(measured)
    return measured


def _answer(answer: Connection, arguments: tuple[Any, ...]) -> None:
    """Send what was measured, or the traceback; without it the other end sees only silence."""
    try:
        measured: dict[str, Any] | str = measure(*arguments)
    except Exception:
        measured = traceback.format_exc()
    # Whoever asked may have been killed meanwhile.
    with contextlib.suppress(BrokenPipeError):
        answer.send(measured)


def measure(
    folder: Path, plan: Plan, plugins: Sequence[Path], device_name: str, threads: int
) -> dict[str, Any]:
    """Load a finished network and return the costs of using it and of training it further.

    Times are those of the recipe's batch, in milliseconds: median and interquartile range.
    Memory is what a training step needs beyond what the process held before the network was
    built, and after a rehearsal. Multiply-accumulates are of the inference of one sample.
    """
    # Imported here because these take half a second, which the run itself is spared.
    from harness.costs.operations import count_operations
    from harness.costs.timing import time_call

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    device = torch.device(device_name)
    registry = Registry(plugins)
    batch = build_task(plan, device).scoring_batches(plan.spec.seed)[0]
    rehearse(plan, load_network(folder, plan, registry, device), batch)
    memory = PeakMemory(device)
    network = load_network(folder, plan, registry, device)
    task, model = network.task, network.model
    step = training_step(plan, network, batch)

    def inference() -> None:
        model.eval()
        with torch.no_grad():
            task.inference(model, batch)

    memory.start()  # what building the network took for a moment is no part of a step
    for _ in range(STEPS):
        step()
    peak = memory.peak()
    seconds = 1.0 if plan.spec.profile == "smoke" else 10.0
    step_time = time_call(step, device, at_most_seconds=seconds)
    inference_time = time_call(inference, device, at_most_seconds=seconds)
    masks = all_masks(network.units.values())
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
        "macs_dense": _dense_macs(plan, counted, operations.dense_macs),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "reasons": {"peak_step_bytes": peak.reason} if peak.reason else {},
    }


def _dense_macs(plan: Plan, network: Network, macs: int) -> int:
    """Return the multiply-accumulates of the network before anything was removed."""
    dense = build_task(plan, torch.device("cpu")).model()
    if dense_shapes(dense) == dense_shapes(network.model):
        return macs
    from harness.costs.operations import count_operations

    task = network.task
    sample = task.one_sample()
    return count_operations(dense, lambda: task.inference(dense.eval(), sample), {}).dense_macs
