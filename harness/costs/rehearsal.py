"""Training steps of a network by itself, and taking some before memory is measured."""

from __future__ import annotations

from collections.abc import Callable

from harness.network import Network
from harness.spec import Plan
from harness.task import Batch
from harness.training.arithmetic import Arithmetic
from harness.training.optimiser import build_optimiser
from harness.training.trainer import update

STEPS = 2
"""The first makes the optimiser's moments; from the second on steps are alike."""


def training_step(plan: Plan, network: Network, batch: Batch) -> Callable[[], None]:
    """Return what trains a network by one step of the recipe, on the same batch each time."""
    optimiser = build_optimiser(network.model.parameters(), plan.recipe)
    units = tuple(network.units.values())
    clip = float(plan.recipe.clip)
    arithmetic = Arithmetic.of(plan.conditions)

    def step() -> None:
        network.model.train()
        update(network.task, network.model, optimiser, units, batch, clip, arithmetic=arithmetic)

    return step


def rehearse(plan: Plan, network: Network, batch: Batch) -> None:
    """Take steps with a network that is thrown away afterwards.

    In the first steps of a process, libraries load code and fill caches: 40 to 200 MB on a CPU,
    whatever the network, and on a GPU cuBLAS takes its workspace from torch's allocator. That is
    no cost of a method, and it depends on what the process did before. Measurements of memory
    begin with this rehearsal, after which the libraries hold what they will keep.
    """
    step = training_step(plan, network, batch)
    for _ in range(STEPS):
        step()
