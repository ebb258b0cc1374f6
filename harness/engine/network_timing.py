"""The times of a finished network: of a training step and of inference, dense and sparse."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from harness.costs.timing import Timing, time_call
from harness.engine.kernel_choice import kernels_of, measured_kernels
from harness.network import Network
from harness.record import SLOWER_THAN_DENSE
from harness.spec import Plan
from harness.task import Batch
from harness.training.kernels import DENSE_EXECUTION, Execution
from harness.training.optimization import build_optimiser
from harness.training.precision import Precision
from harness.training.trainer import update
from harness.units import Kept, all_masks

STEPS = 2
"""The first step creates the optimizer's moments; all later steps are alike."""


def training_step(
    plan: Plan, network: Network, batch: Batch, execution: Execution = DENSE_EXECUTION
) -> Callable[[], None]:
    """Return a function that takes one training step, on the same batch each time."""
    optimiser = build_optimiser(network.model.parameters(), plan.recipe)
    units = tuple(network.units.values())
    clip = float(plan.recipe.clip)
    precision = Precision.of(plan.conditions)

    def step() -> None:
        network.model.train()
        update(
            network.task,
            network.model,
            optimiser,
            units,
            batch,
            clip,
            precision=precision,
            execution=execution,
        )

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


def inference_pass(network: Network, batch: Batch) -> Callable[[], None]:
    """Return a function that does what a user of the network does with a batch."""
    task, model = network.task, network.model

    def inference() -> None:
        model.eval()
        with torch.no_grad():
            task.inference(model, batch)

    return inference


def network_times(
    plan: Plan, network: Network, batch: Batch, seconds: float, *, with_step: bool = True
) -> dict[str, Any]:
    """Time a training step and inference of a batch, each for at most some seconds.

    Without the step its times are None.

    Returns:
        The times, and what other work did meanwhile: ``load`` and ``disturbed``, by time.
    """
    device = network.task.device
    costs: dict[str, Any] = {"load": {}, "disturbed": {}}
    calls = {"inference": inference_pass(network, batch)}
    if with_step:
        calls = {"step": training_step(plan, network, batch), **calls}
    else:
        costs |= dict.fromkeys(("step_ms", "step_ms_iqr", "step_cpu_ms"))
    for name, call in calls.items():
        timing = time_call(call, device, at_most_seconds=seconds)
        costs |= _times(name, timing, device)
        _note_others(costs, f"{name}_ms", [timing], device)
    return costs


def _times(name: str, timing: Timing, device: torch.device) -> dict[str, Any]:
    return {
        f"{name}_ms": timing.median_ms,
        f"{name}_ms_iqr": timing.interquartile_range_ms,
        f"{name}_cpu_ms": timing.cpu_ms if device.type == "cpu" else None,
    }


def _note_others(
    costs: dict[str, Any], name: str, timings: Sequence[Timing], device: torch.device
) -> None:
    """Add the most that other work did while the times of one cost were measured."""
    loads = [timing.load for timing in timings if timing.load is not None]
    costs["load"][name] = {"during": max(loads, default=None)}
    shares = [timing.disturbed for timing in timings if timing.disturbed is not None]
    if device.type == "cpu" and shares:
        costs["disturbed"][name] = max(shares)


def lengths_taken(network: Network, batch: Batch) -> tuple[dict[int, Batch], dict[str, str]]:
    """Return a batch at the lengths of its task, by length, and why the network refuses some."""
    taken, reasons = {}, {}
    for length, shorter in network.task.by_length(batch).items():
        try:
            if shorter is not batch:
                inference_pass(network, shorter)()
        except Exception as error:  # a network of a user may refuse a length in any way
            why = str(error).partition("\n")[0]
            reasons["by_length"] = f"no inference of sequences of length {length}: {why}"
        else:
            taken[length] = shorter
    return taken, reasons


def times_by_length(
    network: Network,
    batch: Batch,
    shortened: Mapping[int, Batch],
    seconds: float,
    costs: dict[str, Any],
) -> dict[int, dict[str, Any]]:
    """Time the inference of shorter sequences, together for at most some seconds.

    Args:
        network: the network.
        batch: the batch, which has been timed.
        shortened: the batch at each length, itself included.
        seconds: how long to time in all.
        costs: has the times of the batch, and gets what other work did meanwhile.

    Returns:
        The times by length.
    """
    device = network.task.device
    calls = {
        length: inference_pass(network, shorter)
        for length, shorter in shortened.items()
        if shorter is not batch
    }
    timings = {
        length: time_call(call, device, at_most_seconds=seconds / len(calls))
        for length, call in calls.items()
    }
    if timings:
        _note_others(costs, "by_length", list(timings.values()), device)
    disturbed = costs["disturbed"]
    if share := disturbed.get("inference_ms"):
        disturbed["by_length"] = max(share, disturbed.get("by_length", 0.0))
    whole = {name: costs[name] for name in ("inference_ms", "inference_ms_iqr", "inference_cpu_ms")}
    return {
        length: _times("inference", timings[length], device) if length in timings else whole
        for length in shortened
    }


def sparse_times(
    plan: Plan,
    network: Network,
    batch: Batch,
    seconds: float,
    costs: dict[str, Any],
    with_step: bool = True,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Time a step and inference with sparse kernels in the masked layers that they make faster.

    Args:
        plan: the run's plan.
        network: the network.
        batch: the batch.
        seconds: how long to time each.
        costs: gets what other work did meanwhile.
        with_step: whether to time a step, too.

    Returns:
        Times and layers; and for each time that there is not, why.
    """
    found: dict[str, Any] = {}
    for name in ("inference", "step"):
        found |= {f"{name}_sparse_ms": None, _SPARSE_LAYERS[name]: []}
    masks = all_masks(network.units.values())
    reason = _why_no_sparse_times(plan, network, masks)
    if reason:
        return found, dict.fromkeys(("inference_sparse_ms", "step_sparse_ms"), reason)
    reasons = {}
    choices = {"inference": _sparse_inference, **({"step": _sparse_step} if with_step else {})}
    for name, choose in choices.items():
        chosen = choose(plan, network, batch, masks)
        if isinstance(chosen, str):
            reasons[f"{name}_sparse_ms"] = chosen
            continue
        layers, context, call = chosen
        with context:
            timing = time_call(call, network.task.device, at_most_seconds=seconds)
        found |= {f"{name}_sparse_ms": timing.median_ms, _SPARSE_LAYERS[name]: list(layers)}
        _note_others(costs, f"{name}_sparse_ms", [timing], network.task.device)
    return found, reasons


_SPARSE_LAYERS = {"inference": "sparse_layers", "step": "step_sparse_layers"}
"""By what is timed: the key of the layers that are sparse in it."""

_Sparse = tuple[Sequence[str], AbstractContextManager[object], Callable[[], None]]
"""The layers that are executed sparsely, and a call to time with the context that it needs."""


def _why_no_sparse_times(plan: Plan, network: Network, masks: Kept) -> str | None:
    if not masks:
        return "no weights are masked"
    if network.task.device.type != "cpu":
        return "sparse kernels are measured on a CPU only"
    if plan.spec.profile == "smoke" and plan.conditions.kernels == "dense":
        return "sparse kernels are not measured in the smoke profile"
    return None


def _sparse_inference(plan: Plan, network: Network, batch: Batch, masks: Kept) -> _Sparse | str:
    """Choose kernels for inference; a reason if none is faster."""
    # Imported here because the process of a run does not need it.
    from harness.sparse_kernels import SparseExecution, choose_kernels

    model, inference = network.model.eval(), inference_pass(network, batch)
    choice = choose_kernels(model, masks, inference)
    if not choice.layers:
        return _not_faster(choice.ratio_all_sparse)
    return (
        choice.layers,
        SparseExecution(model, masks, choice.layers, choice.contiguous),
        inference,
    )


def _sparse_step(plan: Plan, network: Network, batch: Batch, masks: Kept) -> _Sparse | str:
    """Choose kernels for a training step, as a run with kernels=sparse does; or give a reason."""
    if plan.conditions.precision != "float32":
        return f"there are no sparse kernels for {plan.conditions.precision}"
    chosen = measured_kernels(
        network.task, network.model, masks, batch, plan.recipe, Precision.of(plan.conditions)
    )
    kernels = kernels_of(chosen)
    if kernels.are_dense:
        return _not_faster(chosen["passes"] or chosen["step"])
    execution = Execution(kernels, network.model, masks)
    return kernels.layers, nullcontext(), training_step(plan, network, batch, execution)


def _not_faster(ratio: float | None) -> str:
    if ratio is None:
        return "no masked layer has a sparse kernel that could be faster"
    how = SLOWER_THAN_DENSE if ratio > 1 else "hardly faster than dense"
    return f"{how}: sparse kernels take {ratio:.2g} times as long"
