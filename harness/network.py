"""Finished networks: saved to one file, and loaded without running pickled code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from harness.conditions import OF_TEACHER
from harness.errors import RequestError, RunFailed, reading_data
from harness.prunable import dense_shapes, prunable_weights
from harness.record import Record
from harness.registry import Registry
from harness.spec import Plan, as_text, plan, references_of
from harness.storage import network_file
from harness.storage.files import load_state
from harness.storage.store import WEIGHTS, Store
from harness.task import Task
from harness.trained_network import ROLES
from harness.units import Units, all_masks

_FORMER_UNITS = {"channels_by_operations": "channels"}
"""The present names of units in the files of older runs."""
FIRST_UNITS = "units.pt"
"""Where older runs kept the state of their units."""


@dataclass(frozen=True)
class Network:
    """A finished network, and the units that were pruned in it."""

    task: Task
    model: nn.Module
    units: dict[str, Units]


def save_network(folder: Path, model: nn.Module, units: dict[str, Units]) -> None:
    """Write everything that `load_network` needs into one file, without the removed weights."""
    states = {name: each.state() for name, each in units.items()}
    network_file.save_weights(
        folder / WEIGHTS, model.state_dict(), all_masks(units.values()), states
    )


def load_network(
    folder: Path,
    plan: Plan,
    registry: Registry,
    device: torch.device,
    dense: Mapping[str, int] | None = None,
) -> Network:
    """Build the plan's network, prune it as the run did, and load its weights.

    Args:
        folder: the run's folder.
        plan: the run's plan.
        registry: finds task and units.
        device: where to put the network.
        dense: the sizes of its weights before pruning, by name, if known.

    Raises:
        RequestError: the weights are missing, damaged, or belong to another network.
        RunFailed: the units of a run of an earlier version are missing or damaged.
    """
    task = build_task(plan, device)
    model = task.model().to(device)
    weights, states = network_file.load(folder / WEIGHTS)
    sizes = {name: weight.numel() for name, weight in prunable_weights(model).items()}
    network_file.require_same_network(
        folder.name, sizes, sizes if dense is None else dense, "{} weights".format
    )
    if states is None:
        states = load_state(folder / FIRST_UNITS)
    if states is None:
        raise RunFailed(
            f"{folder / FIRST_UNITS} is missing or damaged; remove the run to do it again"
        )
    units: dict[str, Units] = {}
    for name, state in states.items():
        kind = registry.find("units", _FORMER_UNITS.get(name, name)).load()
        units[name] = kind(model, task.forward)
        try:
            units[name].restore(model, state)
        except KeyError as error:
            raise RequestError(
                f"{folder.name} is another network: it has no {name} called {error} here"
            ) from error
    network_file.require_same_network(folder.name, model.state_dict(), weights)
    model.load_state_dict(weights)
    return Network(task, model.eval(), units)


def load(
    run: str | Path, plugins: Sequence[str | Path] = (), data_folder: str | Path = "data"
) -> nn.Module:
    """Return the finished network of a run, on the CPU and in evaluation mode.

    ::

        import harness
        network = harness.load("results/digits-crop_u-0.98-seed0-...")

    Args:
        run: the run's folder.
        plugins: the plug-in files that the run used.
        data_folder: the folder that tasks read data from. The vocabulary or the size of the data
            may decide a network's shape.

    Raises:
        RequestError: there is no such run, its task is unknown, or a file is missing or damaged.
        RunFailed: the task builds another network today; or a file of a run of an earlier version
            is missing or damaged.
    """
    named = Path(run)
    folder = Store(named.parent).locate(named.name)
    return load_finished(
        folder, Registry([Path(plugin) for plugin in plugins]), Path(data_folder)
    ).model


def load_finished(folder: Path, registry: Registry, data_folder: Path) -> Network:
    """Return the finished network of a run, on the CPU and in evaluation mode, with its task.

    Args:
        folder: the run's folder.
        registry: finds task and units.
        data_folder: the folder that tasks read data from.

    Raises:
        RequestError: there is no such run, its task is unknown, or a file is missing or damaged.
        RunFailed: the task builds another network today; or a file of a run of an earlier version
            is missing or damaged.
    """
    record = Store(folder.parent).find(folder.name)
    wanted = plan_of(record, registry, data_folder)
    layers, recorded = record["sparsity"]["per_layer"], record["task"]["version"]
    weights = {layer["name"]: layer["weights"] for layer in layers}
    try:
        return load_network(folder, wanted, registry, torch.device("cpu"), weights)
    except (RequestError, RunFailed, RuntimeError, ValueError, KeyError) as error:
        dense = {layer["name"]: tuple(layer["dense_shape"]) for layer in layers}
        fits = dense_shapes(build_task(wanted, torch.device("cpu")).model()) == dense
        if fits and (recorded == wanted.task.version or isinstance(error, RunFailed)):
            raise
        raise RunFailed(
            f"{folder.name}: the task {wanted.spec.task!r} builds another network than the stored "
            "one: its code has changed since; load it with the code of that time"
        ) from error


def plan_of(record: Record, registry: Registry, data_folder: Path) -> Plan:
    """Return the plan of a finished run, by which its network can be built again.

    Raises:
        RequestError: its task or its pruner is unknown, or its data are missing.
    """
    spec = record["spec"]
    # The networks that the run started from and learnt from are no longer needed.
    overrides = {
        name: as_text(value)
        for name, value in spec["overrides"].items()
        if name not in (*ROLES, *OF_TEACHER)
    }
    return plan(
        registry,
        spec["task"],
        spec["pruner"],
        sparsity=None if "budget" in spec else spec["sparsity"],
        budget=spec.get("budget"),
        seed=spec["seed"],
        profile=spec["profile"],
        overrides=overrides,
        data_folder=data_folder,
        # On which it was timed does not matter any more.
        device="cpu",
    )


def build_task(plan: Plan, device: torch.device) -> Task:
    """Import and build the task of a plan.

    Raises:
        RequestError: the code or a file that a setting names has changed since it was planned.
    """
    current = references_of(plan.task, plan.settings, plan.data_folder)
    for name, digest in plan.references.items():
        if current.get(name) != digest:
            raise RequestError(
                f"{name}={plan.settings[name]} has changed since it was read; run the command again"
            )
    build = plan.task.load()
    with reading_data(plan.spec.task):
        task: Task = build(plan.settings, plan.data_folder, device)
    return task
