"""Tasks and trainers of the embedded profile, on the CPU."""

from __future__ import annotations

import torch

from harness.network import build_task
from harness.registry import Registry
from harness.spec import Plan, plan
from harness.task import Task
from harness.training.trainer import Trainer

CPU = torch.device("cpu")


def embedded(task: str, pruner: str = "dense") -> Plan:
    """Return the plan of a run with seed 0 in the embedded profile."""
    return plan(Registry(), task, pruner)


def embedded_task(name: str) -> Task:
    """Return a task in the embedded profile."""
    return build_task(embedded(name), CPU)


def embedded_trainer(task: Task) -> Trainer:
    """Return a new trainer of a task."""
    return Trainer(task, 0, "equal")
