"""Run a plan from its first step to its record."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import torch

from harness.costs.meter import CostMeter
from harness.costs.timing import Stopwatch
from harness.device import describe_device
from harness.engine.engine import Engine
from harness.engine.failure import failure_recorded
from harness.engine.final_costs import Measure, final_costs
from harness.engine.finish import Finished, assemble
from harness.engine.network_timing import warm_up
from harness.engine.rehearsal import first_pruning
from harness.engine.replay import Replay
from harness.errors import Diverged, RunFailed, Skip
from harness.network import Network, build_task, save_network
from harness.output import Report
from harness.prunable import weight_sparsity
from harness.record import Record
from harness.registry import Registry
from harness.results import provenance
from harness.run import Run
from harness.signals import Stop
from harness.spec import Plan
from harness.storage import files
from harness.storage.checkpoint import Checkpoints
from harness.storage.files import exclusive_lock
from harness.storage.journal import Attempts, Journal
from harness.storage.progress import ProgressFile
from harness.storage.store import Store
from harness.training.distillation import Teacher
from harness.training.precision import Precision
from harness.training.trainer import Trainer
from harness.units import UnreachableSparsity

CHECKPOINT_INTERVAL = 60.0
"""Seconds between two checkpoints."""


def run_plan(
    plan: Plan,
    registry: Registry,
    store: Store,
    device: torch.device,
    report: Report,
    stop: Stop,
    checkpoint_interval: float = CHECKPOINT_INTERVAL,
    runs_on_device: int = 1,
    measure: Measure | None = None,
) -> Record:
    """Return the record of a plan, running it unless it was run before.

    Args:
        plan: what to run.
        registry: finds task, pruner and units.
        store: the results folder.
        device: where to run.
        report: receives lines of progress.
        stop: says when to save and end.
        checkpoint_interval: seconds between two checkpoints.
        runs_on_device: the number of runs, this one included, that may share the device.
        measure: returns the costs of the final network; None stands for `final_costs`.

    Raises:
        Skip: the method does not apply to this network, or cannot reach the sparsity.
        RunFailed: the run failed.
        Interrupted: the process was asked to stop; the same call resumes the run later.
    """
    folder = store.open_run(plan.run_id)
    with exclusive_lock(folder, report, stop):
        files.remove_unfinished(folder)
        checkpoints, progress = Checkpoints(folder, checkpoint_interval), ProgressFile(folder)
        record = store.record(plan.run_id)
        if record is not None:
            report(f"{plan.run_id} is already done")
        else:
            with failure_recorded(plan, store):
                record = _run(
                    plan,
                    registry,
                    folder,
                    checkpoints,
                    progress,
                    device,
                    report,
                    stop,
                    runs_on_device,
                    measure or final_costs,
                )
                progress.remove()
                store.save(record)
        checkpoints.clear()
        return record


def _run(
    plan: Plan,
    registry: Registry,
    folder: Path,
    checkpoints: Checkpoints,
    progress: ProgressFile,
    device: torch.device,
    report: Report,
    stop: Stop,
    runs_on_device: int,
    measure: Measure,
) -> Record:
    # Pruned networks produce denormal numbers, which are slow on a CPU.
    torch.set_flush_denormal(True)
    if plan.timed_on not in (None, here := describe_device(device)):
        raise Skip(f"{plan.run_id} is timed on {plan.timed_on}, and this is {here}")
    preparing = Stopwatch()
    method = plan.pruner.load()
    task = build_task(plan, device)
    untrained = Network(task, task.model().to(device), {})
    warm_up(plan, untrained, task.scoring_batches(plan.spec.seed)[0])
    del untrained
    meter = CostMeter(device, plan.spec.profile != "smoke", preparing.read().load)
    trainer = Trainer(
        task,
        plan.spec.seed,
        plan.conditions.schedule,
        Precision.of(plan.conditions),
        plan.start,
        plan.conditions.warmup,
        Teacher.of(plan, task),
    )
    journal, attempts = Journal(folder / "journal.jsonl"), Attempts(folder / "lives.json")
    engine = Engine(plan, registry, trainer, checkpoints, meter, report, stop, progress)
    replay = Replay(plan.spec.pruner, engine, journal, checkpoints, meter, stop)
    if resumed := replay.resume():
        report(f"resuming from step {trainer.position}")
    meter.begin()
    environment = {**provenance.environment(device), "runs_on_device": runs_on_device}
    attempts.begin(trainer.position, environment)
    if not attempts.same_machine:
        replay.forget_uncovered()
    diverged = None
    try:
        epochs, steps = plan.recipe.epochs, task.steps_per_epoch
        program = partial(method, **plan.options)
        sparsity = engine.budgeting.sparsity
        has_sparsity = plan.spec.budget is None and plan.pruner.arguments.get("prunes", True)
        if not (has_sparsity or resumed):
            pruning = first_pruning(
                program, plan.spec, epochs, steps, max(sparsity, 0.0), engine.name_of
            )
            if pruning is not None:
                engine.budgeting.require_reachable(pruning, trainer.model, task)
        program(Run(plan.spec, epochs, steps, replay, sparsity))
        _check(plan, replay, engine, journal)
        replay.save()
    except Diverged as error:
        diverged = str(error)
        trainer.remove_again()
    except (Skip, UnreachableSparsity) as error:
        shutil.rmtree(folder)  # another attempt would end in the same way
        raise Skip(f"{plan.spec.pruner} on {plan.spec.task}: {error}") from error
    with meter.instrument():
        save_network(folder, trainer.model, trainer.units)
    finished = Finished(plan, folder, engine, journal, meter, attempts, diverged)
    return assemble(finished, registry.plugins, stop, measure)


def _check(plan: Plan, replay: Replay, engine: Engine, journal: Journal) -> None:
    """Check that a method replayed its journal, used its budget and reached its sparsity.

    Raises:
        RunFailed: it did not.
    """
    trainer = engine.trainer
    if not replay.is_complete:
        raise RunFailed("this program is not deterministic: it ended earlier than it did before")
    if trainer.position < trainer.end:
        raise RunFailed(
            f"{plan.spec.pruner} ended after {trainer.position} of {trainer.end} steps; "
            "every method trains for the whole budget: end with run.train()"
        )
    budget = engine.budgeting.reached(trainer.units)
    if budget is not None:
        if budget["reached"] > budget["asked"] * (1 + 1e-9):
            raise RunFailed(
                f"{plan.spec.pruner} left {budget['reached']:.6f} of the dense network's "
                f"{budget['kind']}; the budget is {budget['asked']:.6f}"
            )
        return
    counts = engine.layers()
    one_weight = 1 / sum(layer["weights"] for layer in counts)
    requested, _ = engine.budgeting.requested(entry.event for entry in journal.entries)
    gap = weight_sparsity(counts) - requested
    exact = all(units.exact for units in trainer.units.values())
    if gap < -one_weight or (exact and gap > one_weight):
        raise RunFailed(
            f"{plan.spec.pruner} removed {weight_sparsity(counts):.6f} of the weights; "
            f"it was asked to remove {requested:.6f}"
        )
