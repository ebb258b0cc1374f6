"""What the harness adds to training: its loop beside a bare PyTorch loop.

Same model, batches and optimiser on both sides; validation is left out on both.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmarks.laboratory import CPU, embedded, embedded_task, embedded_trainer
from benchmarks.measurement import Comparison, alternate
from harness.costs.meter import CostMeter
from harness.engine.engine import Engine
from harness.engine.replay import Replay
from harness.registry import Registry
from harness.run import Run
from harness.seeds import derive
from harness.storage.checkpoint import Checkpoints
from harness.storage.journal import Journal
from harness.task import Split, Task
from harness.training.trainer import Trainer

EPOCHS = 8
CHECKPOINT_INTERVAL = 15.0
"""Four times as often as a real run does, because this one is shorter than a minute."""


def measure() -> list[Comparison]:
    """Let the harness and a bare loop train an epoch in turn."""
    task = embedded_task("digits")
    trainer = embedded_trainer(task)
    loop, bare = alternate(lambda: _epoch(trainer), _bare_loop(task), EPOCHS)
    lines = [Comparison("training loop / bare loop", loop, bare, "s", 1.03)]
    task.evaluate = _no_evaluation  # type: ignore[method-assign]  # the bare loop has none
    with tempfile.TemporaryDirectory() as folder:
        run = _run(task, Path(folder))
        whole, bare = alternate(lambda: run.train(epochs=1), _bare_loop(task), EPOCHS)
    lines.append(Comparison("with journal and checkpoints", whole, bare, "s", 1.05))
    return lines


def _epoch(trainer: Trainer) -> None:
    for _ in range(trainer.task.steps_per_epoch):
        trainer.step()
    trainer.mean_loss()


def _run(task: Task, folder: Path) -> Run:
    plan, trainer = embedded("digits"), embedded_trainer(task)
    checkpoints = Checkpoints(folder, CHECKPOINT_INTERVAL)
    meter = CostMeter(CPU, measure_energy=False)
    engine = Engine(plan, Registry(), trainer, checkpoints, meter, report=lambda line: None)
    journal = Journal(folder / "journal.jsonl")
    replay = Replay("dense", engine, journal, checkpoints, meter, interrupted=lambda: False)
    return Run(plan.spec, plan.settings["epochs"], task.steps_per_epoch, replay)


def _no_evaluation(model: nn.Module, split: Split) -> dict[str, float]:
    return {"accuracy": 0.0}


def _bare_loop(task: Task) -> Callable[[], None]:
    """Return what trains an epoch as one would write it by hand."""
    torch.manual_seed(derive(0, "weights"))
    model = task.model()
    stream = task.stream(model, 0)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3, weight_decay=5e-5)

    def epoch() -> None:
        model.train()
        for _ in range(task.steps_per_epoch):
            images, labels = stream.next(model)
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimiser.step()

    return epoch
