"""Runs of the task in `tests.helpers.points`, in this process and in milliseconds."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness.costs.meter import CostMeter
from harness.engine.engine import Engine
from harness.engine.replay import Replay
from harness.engine.run_plan import run_plan
from harness.network import build_task
from harness.registry import Registry
from harness.run import Run
from harness.signals import Stop
from harness.spec import Plan, plan
from harness.storage.checkpoint import Checkpoints
from harness.storage.journal import Journal
from harness.storage.store import Store
from harness.task import Task
from harness.training.trainer import Trainer
from tests.helpers.costs import unmeasured

POINTS = Path(__file__).with_name("points.py")
"""The plug-in with the task."""
CPU = torch.device("cpu")

WATCHING = POINTS.with_name("watching.py")
"""A plug-in with methods that use everything that a run can do."""
FAULTS = POINTS.with_name("faults.py")
"""A plug-in with methods that end badly; a process that loads it measures no final network."""

METHOD = """
from harness.registry import pruner
from pruners.criteria import *
from pruners.weights import Weights

@pruner("tried", title="Tried")
def tried(run):
"""
"""The beginning of a plug-in with a method; its indented body follows."""


@dataclass(frozen=True)
class Begun:
    """A run that the test drives in place of a method, and the parts that it may look at."""

    run: Run
    engine: Engine
    trainer: Trainer
    journal: Journal


class Workbench:
    """Runs of the points, in one folder.

    Args:
        folder: for results and plug-ins.
        plugins: plug-ins to load beside the points.
        points: the file of the points.
    """

    def __init__(
        self, folder: Path, plugins: Sequence[Path] = (), *, points: Path = POINTS
    ) -> None:
        self.folder = folder
        self.registry = Registry([points, *plugins])

    @property
    def points(self) -> type[Task]:
        """The class of the task, for tests that watch or change it."""
        definition: type[Task] = self.registry.find("task", "points").load()
        return definition

    def plan(
        self,
        pruner: str,
        *,
        sparsity: float = 0.8,
        seed: int = 0,
        profile: str = "smoke",
        **overrides: str,
    ) -> Plan:
        """Return a plan for the points."""
        return plan(
            self.registry,
            "points",
            pruner,
            sparsity=sparsity,
            seed=seed,
            profile=profile,
            overrides=overrides,
        )

    def begin(
        self, pruner: str = "crop_u", *, sparsity: float = 0.8, seed: int = 0, **overrides: str
    ) -> Begun:
        """Begin a run that the test drives, without the program of its method."""
        wanted = self.plan(pruner, sparsity=sparsity, seed=seed, **overrides)
        conditions = wanted.conditions
        trainer = Trainer(
            build_task(wanted, CPU), seed, conditions["schedule"], warmup=conditions["warmup"]
        )
        folder = self.folder / f"begun-{len(list(self.folder.glob('begun-*')))}"
        folder.mkdir()
        journal = Journal(folder / "journal.jsonl")
        checkpoints = Checkpoints(folder, interval=3600)
        meter = CostMeter(CPU, measure_energy=False)
        engine = Engine(wanted, self.registry, trainer, checkpoints, meter, lambda line: None)
        replay = Replay(pruner, engine, journal, checkpoints, meter, lambda: False)
        epochs, steps = int(wanted.settings["epochs"]), trainer.task.steps_per_epoch
        return Begun(Run(wanted.spec, epochs, steps, replay), engine, trainer, journal)

    def run(self, pruner: str, *, sparsity: float = 0.8, seed: int = 0, **overrides: str) -> Any:
        """Carry out a run and return its record; its final network is not measured."""
        wanted = self.plan(pruner, sparsity=sparsity, seed=seed, **overrides)
        return run_plan(
            wanted,
            self.registry,
            Store(self.folder),
            CPU,
            lambda line: None,
            Stop(),
            measure=unmeasured,
        )

    def with_method(self, body: str) -> Workbench:
        """Return a workbench with one more method, named ``tried``, that has this body."""
        folder = self.folder / f"tried-{len(list(self.folder.glob('tried-*')))}"
        folder.mkdir()
        plugin = folder / "tried.py"
        plugin.write_text(METHOD + textwrap.indent(textwrap.dedent(body).strip(), "    ") + "\n")
        return Workbench(folder, [plugin])
