"""The finished network on the disk: loaded again without running pickled code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from harness.costs.disk import load_weights, save_weights
from harness.errors import RunFailed
from harness.files import load_state, save_state
from harness.registry import Registry
from harness.spec import Plan
from harness.task import Task
from harness.units import Units

WEIGHTS = "network.safetensors"
UNITS = "units.pt"


@dataclass(frozen=True)
class Network:
    """A finished network with what was pruned in it."""

    task: Task
    model: nn.Module
    units: dict[str, Units]


def save_network(folder: Path, model: nn.Module, units: dict[str, Units]) -> None:
    """Write the network's weights, masked ones sparsely, and the state of its units."""
    masks = {name: mask for each in units.values() for name, mask in each.masks().items()}
    save_weights(folder / WEIGHTS, model.state_dict(), masks)
    save_state(folder / UNITS, {name: each.state() for name, each in units.items()})


def load_network(folder: Path, plan: Plan, registry: Registry, device: torch.device) -> Network:
    """Build the plan's network, cut it as it was cut, and load its weights.

    Raises:
        RunFailed: a file is missing or damaged.
    """
    task = build_task(plan, device)
    model = task.model().to(device)
    try:
        units_state = load_state(folder / UNITS)
    except FileNotFoundError:
        units_state = None
    if units_state is None:
        raise RunFailed(f"{folder / UNITS}: is missing or damaged; remove the run to do it again")
    units: dict[str, Units] = {}
    for name, state in units_state.items():
        units[name] = registry.find("units", name).load()(model)
        units[name].restore(model, state)
    model.load_state_dict(load_weights(folder / WEIGHTS))
    return Network(task, model.eval(), units)


def build_task(plan: Plan, device: torch.device) -> Task:
    """Import and build the plan's task."""
    task: Task = plan.task.load()(plan.settings, plan.data_folder, device)
    return task
