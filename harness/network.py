"""The finished network on the disk: loaded again without running pickled code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.costs.disk import load_weights, save_weights
from harness.durability.files import load_state, save_state
from harness.errors import RequestError, RunFailed
from harness.pruning.sparsity import dense_shapes
from harness.registry import Registry
from harness.results.store import WEIGHTS, Store
from harness.spec import Plan, as_text, plan
from harness.start import Start
from harness.task import Task
from harness.units import Units, all_masks

UNITS = "units.pt"


@dataclass(frozen=True)
class Network:
    """A finished network with what was pruned in it."""

    task: Task
    model: nn.Module
    units: dict[str, Units]


def save_network(folder: Path, model: nn.Module, units: dict[str, Units]) -> None:
    """Write the network's weights, masked ones sparsely, and the state of its units."""
    save_weights(folder / WEIGHTS, model.state_dict(), all_masks(units.values()))
    save_state(folder / UNITS, {name: each.state() for name, each in units.items()})


def load_network(folder: Path, plan: Plan, registry: Registry, device: torch.device) -> Network:
    """Build the plan's network, cut it as it was cut, and load its weights.

    Raises:
        RunFailed: a file is missing or damaged.
    """
    task = build_task(plan, device)
    model = task.model().to(device)
    units_state = load_state(folder / UNITS)
    if units_state is None:
        raise RunFailed(f"{folder / UNITS}: is missing or damaged; remove the run to do it again")
    units: dict[str, Units] = {}
    for name, state in units_state.items():
        units[name] = registry.find("units", name).load()(model, task.forward)
        units[name].restore(model, state)
    model.load_state_dict(load_weights(folder / WEIGHTS))
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
        data_folder: where official data lie, whose vocabulary or size a network may need.

    Raises:
        RequestError: there is no such run, or its task is not known.
        RunFailed: a file is missing or damaged.
    """
    named = Path(run)
    folder = Store(named.parent).locate(named.name)
    record = Store(folder.parent).find(folder.name)
    spec, layers = record["spec"], record["sparsity"]["per_layer"]
    recorded = record["task"]["version"]
    registry = Registry([Path(plugin) for plugin in plugins])
    wanted = plan(
        registry,
        spec["task"],
        spec["pruner"],
        sparsity=spec["sparsity"],
        seed=spec["seed"],
        profile=spec["profile"],
        # What the network began from does not matter any more, and need not be there.
        overrides={
            name: as_text(value) for name, value in spec["overrides"].items() if name != "start"
        },
        data_folder=Path(data_folder),
    )
    try:
        return load_network(folder, wanted, registry, torch.device("cpu")).model
    except (RequestError, RunFailed, RuntimeError, ValueError, KeyError) as error:
        dense = {layer["name"]: tuple(layer["dense_shape"]) for layer in layers}
        fits = dense_shapes(build_task(wanted, torch.device("cpu")).model()) == dense
        if fits and (recorded == wanted.task.version or isinstance(error, RunFailed)):
            raise
        raise RunFailed(
            f"{folder.name}: the task {spec['task']!r} builds another network than the stored one: "
            "its code has changed since; load it with the code of that time"
        ) from error


def begin_from(start: Start, model: nn.Module) -> None:
    """Give a new network the weights from which its run begins.

    Raises:
        RequestError: they are damaged, or those of another network.
    """
    ours, theirs = model.state_dict(), load_weights(start.weights)
    for name in ours | theirs:
        here, there = (_shape(name, state) for state in (ours, theirs))
        if here != there:
            raise RequestError(
                f"start={start.run}: is another network: its {name!r} is {there}, and here {here}"
            )
    model.load_state_dict(theirs)


def _shape(name: str, state: Mapping[str, Tensor]) -> str:
    return "x".join(map(str, state[name].shape)) or "a number" if name in state else "missing"


def build_task(plan: Plan, device: torch.device) -> Task:
    """Import and build the plan's task."""
    task: Task = plan.task.load()(plan.settings, plan.data_folder, device)
    return task
