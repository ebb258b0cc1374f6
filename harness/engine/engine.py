"""What the operations of a run do to the network in training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn

from harness.costs.exclusive_device import device_lock
from harness.costs.meter import CostMeter
from harness.costs.training_operations import (
    Shapes,
    TrainingOperations,
    Uncountable,
    elements_left,
    shapes_of,
)
from harness.engine.budgeting import Budgeting
from harness.engine.kernel_choice import KernelChoice
from harness.engine.pruning import Pruning
from harness.errors import RunFailed
from harness.operations import (
    Exchange,
    Learning,
    Operation,
    Penalty,
    Prune,
    Release,
    Returned,
    Rewind,
    Snapshot,
    TakeSnapshot,
    Train,
    Trained,
    UnitPenalty,
)
from harness.pruning.diagnostics import TangentKernel
from harness.pruning.event import digest
from harness.pruning.network_costs import NetworkCosts
from harness.registry import Registry
from harness.seeds import derive
from harness.signals import Stop
from harness.spec import Plan
from harness.storage.checkpoint import Checkpoints
from harness.storage.progress import ProgressFile
from harness.task import Batch
from harness.text import epoch_of
from harness.training.kernels import WATCHED
from harness.training.masked_forward import MaskedForward
from harness.training.trainer import Trainer
from harness.units import Units

Progress = dict[str, Any]
"""What a training underway needs to continue from a checkpoint."""

SaveIfDue = Callable[[Callable[[], Progress | None]], None]
"""Writes a checkpoint when it is time for one."""


_TIMING_SECONDS, _SMOKE_TIMING_SECONDS = 0.4, 0.1
"""How long one timing of a network takes in the search for a budget of latency."""


class Engine:
    """Performs training, pruning, snapshots and rewinding on one network.

    Args:
        plan: what is run.
        registry: finds units by name.
        trainer: the network in training.
        checkpoints: where snapshots are stored.
        meter: leaves the suite's own instruments out of the method's costs.
        report: receives lines of progress.
        stop: ends a search for a budget.
        progress: where to write after each epoch how far the run is.
    """

    def __init__(
        self,
        plan: Plan,
        registry: Registry,
        trainer: Trainer,
        checkpoints: Checkpoints,
        meter: CostMeter,
        report: Callable[[str], None],
        stop: Stop | None = None,
        progress: ProgressFile | None = None,
    ) -> None:
        self.trainer = trainer
        self._progress = progress
        self._plan = plan
        self._registry = registry
        self._checkpoints = checkpoints
        self._meter = meter
        self._report = report
        self._steps_per_epoch = trainer.task.steps_per_epoch
        self.initial_digest = digest(trainer.model.state_dict())
        batches = trainer.task.scoring_batches(plan.spec.seed)
        is_smoke = plan.spec.profile == "smoke"
        alone = partial(device_lock, trainer.task.device, report, stop := stop or Stop())
        costs = NetworkCosts(
            trainer.task,
            batches[0],
            checkpoints.times,
            meter.instrument,
            _SMOKE_TIMING_SECONDS if is_smoke else _TIMING_SECONDS,
            alone,
            stop,
        )
        self.budgeting = Budgeting(plan, costs, report)
        self._operations = TrainingOperations(trainer.task, meter.instrument)
        kernel_choice = None
        if plan.conditions.kernels == "sparse":
            kernel_choice = KernelChoice(trainer, batches[0], is_smoke, alone, report)
        self._kernel: TangentKernel | None = None
        if plan.conditions.kernel:
            batch_statistics = plan.conditions.statistics == "batch"
            self._kernel = TangentKernel(trainer.task, batches[0], plan.spec.seed, batch_statistics)
            self._kernel.start(trainer.model, trainer.masks())
        self._pruning = Pruning(
            plan,
            registry,
            trainer,
            batches,
            meter,
            self.budgeting,
            self._kernel,
            kernel_choice,
            report,
        )

    def perform(
        self,
        operation: Operation,
        number: int,
        progress: Progress | None,
        save_if_due: SaveIfDue,
        earlier: Mapping[str, Any] | None = None,
    ) -> tuple[Returned, dict[str, Any]]:
        """Perform an operation.

        Args:
            operation: what to do.
            number: its place among the operations of the run, from 0.
            progress: what an interrupted training has saved; None to begin.
            save_if_due: called where it is safe to write a checkpoint.
            earlier: what the record says of the same event in an earlier attempt, from which
                whatever was measured and decides the result is taken over.

        Returns:
            What the method gets, and what the record says of the event.
        """
        match operation:
            case Train():
                with _learning(self.trainer.model, operation.only):
                    return self._train(operation, number, progress, save_if_due)
            case Prune():
                seed = derive(self._plan.spec.seed, "prune", number)
                return self._pruning.prune(operation, seed, earlier or {})
            case Exchange():
                seed = derive(self._plan.spec.seed, "exchange", number)
                return self._pruning.exchange(operation, seed)
            case Release():
                return self._pruning.release(operation)
            case TakeSnapshot():
                with self._meter.instrument():
                    self._checkpoints.save_snapshot(number, self.trainer.snapshot())
                return Snapshot(number), {}
            case Rewind(snapshot, weights):
                self.trainer.rewind(self._checkpoints.snapshot(snapshot.number), weights)
                self._pruning.measure_kernel()
                return None, {} if weights else {"weights": "kept"}

    def _train(
        self, operation: Train, number: int, progress: Progress | None, save_if_due: SaveIfDue
    ) -> tuple[Trained, dict[str, Any]]:
        trainer, until, observe = self.trainer, operation.until, operation.observe
        watch = operation.watch
        start, fired = trainer.position, False
        epochs: list[dict[str, Any]] = []
        watchers = [each for each in (until, *observe.values(), watch) if each is not None]
        if progress is not None:
            start, epochs = progress["start"], progress["epochs"]
            for watcher, state in zip(watchers, progress["watchers"], strict=True):
                watcher.restore(state)
        else:
            if until is not None:
                until.begin(self._pruning.shown_to(until))
            with self._meter.instrument():
                for trigger in observe.values():
                    trigger.begin(self._pruning.shown_to(trigger))

        def to_continue() -> Progress:
            states = [watcher.state() for watcher in watchers]
            return {"start": start, "epochs": epochs, "watchers": states}

        after_backward = None
        if watch is not None:
            units = self._pruning.units_of(watch.units)
            after_backward = partial(watch.after_backward, units=units)
            if not trainer.kernels.are_dense:
                self._report(f"kernels=sparse: {WATCHED}")
        if self._progress is not None:
            self._progress.begin(trainer.spent)
            self._progress.begin_training(number, epochs)
        penalty = self._penalty(operation.penalty)
        longest = operation.longest(self._steps_per_epoch)
        end = trainer.end if longest is None else min(trainer.end, start + longest)
        count_step = self._step_counter()
        while trainer.position < end and not fired:
            save_if_due(to_continue)
            self._require_budget()
            count_step(trainer.step(penalty, after_backward, operation.masked))
            if self._epoch_ends:
                with MaskedForward(trainer.model, operation.masked):
                    epoch = self._after_epoch(trainer.mean_loss())
                epochs.append(epoch)
                if until is not None:
                    reading = until.after_epoch(self._pruning.shown_to(until))
                    epoch["trigger"] = reading.value
                    if reading.threshold is not None:
                        epoch["threshold"] = reading.threshold
                    fired = reading.fired
                if observe:
                    with self._meter.instrument():
                        epoch["observed"] = {
                            name: trigger.after_epoch(self._pruning.shown_to(trigger)).value
                            for name, trigger in observe.items()
                        }
                if self._progress is not None:
                    with self._meter.instrument():
                        self._progress.add_epoch(epoch)
        capped = until is not None and not fired
        event: dict[str, Any] = {
            "epochs": epochs,
            "ended_by": "trigger" if fired else "cap" if capped else "plan",
        }
        if after_backward is not None and not trainer.kernels.are_dense:
            event["dense_because"] = WATCHED
        scores = None if watch is None else watch.scores()
        return Trained(trainer.position - start, fired, scores), event

    def _step_counter(self) -> Callable[[Batch], None]:
        """Return a function that adds the operations of a step, given its batch, to the costs.

        Until the network changes, steps with batches of equal shapes have equal operations.
        """
        model, known = self.trainer.model, dict[Shapes, int]()
        left, teacher = elements_left(model, self.trainer.masks()), self.trainer.teacher

        def count(batch: Batch) -> None:
            shapes = shapes_of(batch)
            if shapes not in known:
                try:
                    work = self._operations.step(model, batch)
                    known[shapes] = work.forward(left) + work.backward(left)
                    if teacher is not None:
                        work = self._operations.scoring(teacher.model, batch)
                        known[shapes] += work.forward(elements_left(teacher.model, {}))
                except Uncountable as error:
                    self._meter.cannot_count(str(error))
                    known[shapes] = 0
            self._meter.count(macs=known[shapes])

        return count

    def _penalty(self, penalty: Penalty | UnitPenalty | None) -> Penalty | None:
        """Return a penalty as a function of the model alone."""
        if isinstance(penalty, UnitPenalty):
            return partial(penalty, units=self._pruning.units_of(penalty.units))
        return penalty

    def _require_budget(self) -> None:
        if self.trainer.spent < self.trainer.end:
            return
        if not self._exceeds_budget:
            raise RunFailed(
                f"the budget of {self._plan.recipe.epochs} epochs is spent; a method that by "
                "nature needs more says so: @pruner(..., exceeds_budget=True)"
            )

    @property
    def _exceeds_budget(self) -> bool:
        return bool(self._plan.pruner.arguments.get("exceeds_budget", False))

    @property
    def _epoch_ends(self) -> bool:
        return self.trainer.position % self._steps_per_epoch == 0

    def _after_epoch(self, loss: float) -> dict[str, Any]:
        """Evaluate for the record; the method never sees the result."""
        trainer = self.trainer
        metric = self._plan.task.arguments["metric"]
        with self._meter.instrument():
            validation = trainer.evaluate("validation", metric)
        done, budget = (steps // self._steps_per_epoch for steps in (trainer.spent, trainer.end))
        self._report(
            f"{epoch_of(done, budget)}"
            f"  loss {loss:.4f}  validation {metric} {validation[metric]:.4g}"
        )
        if self._progress is not None:
            with self._meter.instrument():
                left = None if self._exceeds_budget else trainer.end - trainer.spent
                value = validation[metric]
                self._progress.write(done, budget, metric, value, trainer.spent, left)
        epoch: dict[str, Any] = {
            "position": trainer.position,
            "spent": trainer.spent,
            "loss": loss,
            "validation": validation,
        }
        if self._kernel is not None:
            with self._meter.instrument():
                epoch["kernel"] = self._kernel.after_epoch(trainer.model, trainer.masks())
        return epoch

    def name_of(self, units: type[Units]) -> str:
        """Return the name under which units are registered."""
        return self._pruning.name_of(units)

    def layers(self) -> list[dict[str, Any]]:
        """Return how many weights each layer had and has left."""
        return self._pruning.layers()

    def state(self) -> dict[str, Any]:
        """Return the engine's part of a checkpoint."""
        kernel = None if self._kernel is None else self._kernel.state()
        return {"trainer": self.trainer.state(), "kernel": kernel}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.trainer.restore(
            state["trainer"], lambda name: self._registry.find("units", name).load()
        )
        if self._kernel is not None:
            self._kernel.restore(state["kernel"])


@contextmanager
def _learning(model: nn.Module, only: Learning | None) -> Iterator[None]:
    """Freeze all parameters but those that ``only`` picks."""
    if only is None:
        yield
        return
    names = set(only(model))
    frozen = [p for name, p in model.named_parameters() if name not in names and p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
