"""Carry out a plan from the first step to its record."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from harness import provenance
from harness.checkpoint import Checkpoints
from harness.errors import Diverged, RequestError, RunFailed
from harness.journal import Journal
from harness.ledger import Ledger
from harness.network import build_task, save_network
from harness.record import assemble
from harness.registry import Registry
from harness.run import Run
from harness.sparsity import weight_sparsity
from harness.spec import Plan
from harness.store import Record, Store
from harness.training import Trainer
from harness.units import UnreachableSparsity

CHECKPOINT_INTERVAL = 60.0
"""Seconds between two checkpoints."""

Report = Callable[[str], None]
"""Takes a line of progress."""


@dataclass
class Stop:
    """Whether the process was asked to stop, by SIGTERM or Ctrl-C."""

    requested: bool = False

    def __call__(self) -> bool:
        """Return whether it was."""
        return self.requested

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take signals until the end of the context; a second one interrupts at once."""

        def receive(number: int, frame: object) -> None:
            if self.requested:
                raise KeyboardInterrupt
            self.requested = True

        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, receive) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def carry_out(
    plan: Plan,
    registry: Registry,
    store: Store,
    device: torch.device,
    report: Report,
    stop: Stop,
    checkpoint_interval: float = CHECKPOINT_INTERVAL,
) -> Record:
    """Return the record of a plan, carrying it out unless that was done before.

    Args:
        plan: what to run.
        registry: finds task, pruner and units.
        store: where the run's folder lies.
        device: where it runs.
        report: takes lines of progress.
        stop: says when to save and end.
        checkpoint_interval: seconds between two checkpoints.

    Raises:
        RequestError: the request cannot be met.
        RunFailed: the run failed.
        Interrupted: the process was asked to stop; the same call goes on later.
    """
    folder = store.open_run(plan.run_id)
    with _alone(folder, report):
        record = store.record(plan.run_id)
        if record is not None:
            report(f"{plan.run_id} was done before")
            return record
        checkpoints = Checkpoints(folder, checkpoint_interval)
        record = _run(plan, registry, folder, checkpoints, device, report, stop)
        store.save(record)
        checkpoints.clear()
        return record


@contextmanager
def _alone(folder: Path, report: Report) -> Iterator[None]:
    """Let one process at a time carry out a run; the others wait, and say for whom."""
    lock, owner = FileLock(folder / "lock"), folder / "owner"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        name = owner.read_text() if owner.exists() else "another process"
        report(f"{folder.name} is being carried out by {name}; waiting for it to end")
        lock.acquire()
    except OSError as error:
        raise RequestError(f"results folder {folder.parent}: {error.strerror}") from error
    try:
        owner.write_text(f"process {os.getpid()}")
        yield
        owner.unlink(missing_ok=True)
    finally:
        lock.release()


def _run(
    plan: Plan,
    registry: Registry,
    folder: Path,
    checkpoints: Checkpoints,
    device: torch.device,
    report: Report,
    stop: Stop,
) -> Record:
    """Carry out the program and return its record."""
    # A network with most of its weights gone makes denormal numbers, which a CPU computes slowly.
    torch.set_flush_denormal(True)
    method = plan.pruner.load()
    task = build_task(plan, device)
    environment = provenance.environment(device)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    ledger = Ledger(device, measure_energy=plan.spec.profile != "smoke")
    trainer = Trainer(task, plan.spec.seed, plan.conditions["schedule"])
    journal = Journal(folder / "journal.jsonl")
    run = Run(plan, registry, trainer, journal, checkpoints, ledger, stop, report)
    ledger.lives.append({"started": started, "position": 0, **environment})
    state = checkpoints.newest()
    if state is not None and state["verb"] <= len(journal.entries):
        run.restore(state)
        ledger.lives[-1]["position"] = trainer.position
        report(f"going on from step {trainer.position}, interrupted before")
    if not ledger.same_machine:
        # The last bits may differ here, so what no checkpoint covers is no longer binding.
        journal.truncate(run.covered)
    reason = None
    try:
        method(run, **plan.options)
        _check(plan, run, trainer)
    except Diverged as error:
        reason = str(error)
    except UnreachableSparsity as error:
        raise RequestError(f"{plan.spec.pruner} on {plan.spec.task}: {error}") from error
    else:
        run.save()
    save_network(folder, trainer.model, trainer.units)
    return assemble(plan, registry, folder, run, trainer, journal, ledger, device, reason)


def _check(plan: Plan, run: Run, trainer: Trainer) -> None:
    """Hold a program that has ended to its budget and to the sparsity asked for.

    Raises:
        RunFailed: it kept to neither.
    """
    if trainer.position < trainer.end:
        raise RunFailed(
            f"{plan.spec.pruner} ended after {trainer.position} of {trainer.end} steps; "
            "every method trains for the whole budget: end with run.train()"
        )
    counts = run.layers()
    one_weight = 1 / sum(layer["weights"] for layer in counts)
    gap = weight_sparsity(counts) - plan.spec.sparsity
    exact = all(units.exact for units in trainer.units.values())
    if gap < -one_weight or (exact and gap > one_weight):
        raise RunFailed(
            f"{plan.spec.pruner} removed {weight_sparsity(counts):.6f} of the weights "
            f"where {plan.spec.sparsity:.6f} was asked for"
        )
