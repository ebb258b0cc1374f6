"""What the operations of a run do to the network in training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
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
from harness.errors import Diverged, RunFailed
from harness.operations import (
    Exchange,
    Exchanged,
    Learning,
    Operation,
    Penalty,
    Prune,
    Pruned,
    Release,
    Returned,
    Rewind,
    Snapshot,
    TakeSnapshot,
    Train,
    Trained,
    UnitPenalty,
)
from harness.prunable import dense_shapes, layers, prunable_weights, weight_sparsity
from harness.pruning.diagnostics import TangentKernel
from harness.pruning.event import PruningEvents, digest
from harness.pruning.network_costs import NetworkCosts
from harness.pruning.receipt import Account, receipt
from harness.pruning.scoring_cost import ScoringCost
from harness.registry import Registry
from harness.results.receipts import receipt_lines, sparse_kernels_line
from harness.seeds import derive
from harness.signals import Stop
from harness.spec import Plan
from harness.storage.checkpoint import Checkpoints
from harness.storage.progress import ProgressFile
from harness.task import Batch
from harness.training.kernels import DENSE, WATCHED
from harness.training.masked_forward import MaskedForward
from harness.training.trainer import Trainer
from harness.trigger import Trigger
from harness.units import (
    Pattern,
    PatternedUnits,
    ReturningUnits,
    Scope,
    ScoreError,
    Units,
    isomorphic,
)

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
        self._dense_shapes = dense_shapes(trainer.model)
        self._dense = sum(math.prod(shape) for shape in self._dense_shapes.values())
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
        scoring_cost = ScoringCost(meter, trainer.task)
        self._events = PruningEvents(
            trainer, batches, plan.conditions, meter.instrument, scoring_cost
        )
        self._kernel_choice: KernelChoice | None = None
        if plan.conditions.kernels == "sparse":
            self._kernel_choice = KernelChoice(trainer, batches[0], is_smoke, alone, report)
        self._accounts: dict[str, Account] = {}
        """Of the present network, by the name of units; empty if they were not taken."""
        self._kernel: TangentKernel | None = None
        if plan.conditions.kernel:
            batch_statistics = plan.conditions.statistics == "batch"
            self._kernel = TangentKernel(trainer.task, batches[0], plan.spec.seed, batch_statistics)
            self._kernel.start(trainer.model, trainer.masks())

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
                    return self._train(operation, progress, save_if_due)
            case Prune():
                seed = derive(self._plan.spec.seed, "prune", number)
                return self._prune(operation, seed, earlier or {})
            case Exchange():
                return self._exchange(operation, derive(self._plan.spec.seed, "exchange", number))
            case Release():
                return self._release(operation)
            case TakeSnapshot():
                with self._meter.instrument():
                    self._checkpoints.save_snapshot(number, self.trainer.snapshot())
                return Snapshot(number), {}
            case Rewind(snapshot, weights):
                self.trainer.rewind(self._checkpoints.snapshot(snapshot.number), weights)
                self._measure_kernel()
                return None, {} if weights else {"weights": "kept"}

    def _train(
        self, operation: Train, progress: Progress | None, save_if_due: SaveIfDue
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
                until.begin(self._shown_to(until))
            with self._meter.instrument():
                for trigger in observe.values():
                    trigger.begin(self._shown_to(trigger))

        def to_continue() -> Progress:
            states = [watcher.state() for watcher in watchers]
            return {"start": start, "epochs": epochs, "watchers": states}

        after_backward = None
        if watch is not None:
            units = self._units_of(watch.units)
            after_backward = partial(watch.after_backward, units=units)
            if not trainer.kernels.are_dense:
                self._report(f"kernels=sparse: {WATCHED}")
        if self._progress is not None:
            self._progress.begin(trainer.spent)
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
                    reading = until.after_epoch(self._shown_to(until))
                    epoch["trigger"] = reading.value
                    if reading.threshold is not None:
                        epoch["threshold"] = reading.threshold
                    fired = reading.fired
                if observe:
                    with self._meter.instrument():
                        epoch["observed"] = {
                            name: trigger.after_epoch(self._shown_to(trigger)).value
                            for name, trigger in observe.items()
                        }
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
            return partial(penalty, units=self._units_of(penalty.units))
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
        done, all_epochs = (
            steps // self._steps_per_epoch for steps in (trainer.spent, trainer.end)
        )
        self._report(
            f"epoch {done}/{all_epochs}"
            f"  loss {loss:.4f}  validation {metric} {validation[metric]:.4g}"
        )
        if self._progress is not None:
            with self._meter.instrument():
                left = None if self._exceeds_budget else trainer.end - trainer.spent
                value = validation[metric]
                self._progress.write(done, all_epochs, metric, value, trainer.spent, left)
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

    def _measure_kernel(self) -> None:
        """Measure the kernel with which the next one is compared."""
        if self._kernel is not None:
            with self._meter.instrument():
                self._kernel.measure(self.trainer.model, self.trainer.masks())

    def _prune(
        self, operation: Prune, seed: int, earlier: Mapping[str, Any]
    ) -> tuple[Pruned, dict[str, Any]]:
        trainer, measured = self.trainer, operation.measured
        if measured and not self._epoch_ends:
            self._measure_kernel()
        budgeting, units = self.budgeting, self._units_of(operation.units)
        kind = operation.of or budgeting.kind
        pattern = operation.scope if isinstance(operation.scope, Pattern) else None
        targets = operation.targets
        if pattern is not None:
            targets = [budgeting.sparsity_of(pattern, units, operation.units_name, self._dense)]
        before = self._account(operation.units_name, units) if measured else None
        try:
            event, scored = self._events.prune(
                units,
                operation.criterion,
                targets,
                self._scope(operation.scope),
                seed,
                budgeting.limiter(units, operation.units_name, kind),
                measured,
            )
        except ScoreError as error:
            raise self._unranked(error) from error
        self._accounts.clear()
        if self._plan.conditions.weights == "redrawn":
            trainer.redraw()
        trainer.anchor = trainer.position
        with self._meter.instrument():
            sparsity = weight_sparsity(self.layers())
            self._require_removed(targets[-1], kind, sparsity)
            if before is not None:
                if self._kernel is not None:
                    event["kernel"] = self._kernel.after_pruning(trainer.model, trainer.masks())
                misfits: Mapping[str, str] = {}
                if pattern is not None and isinstance(units, PatternedUnits):
                    misfits = units.misfits(pattern)
                asked, reached = targets[-1], sparsity
                if kind is not None:
                    asked = round(1 - asked, 12)
                    reached = budgeting.share(units, operation.units_name, kind)
                event["receipt"] = receipt(
                    units,
                    before,
                    self._account(operation.units_name, units),
                    asked=asked,
                    reached=reached,
                    scored=scored,
                    frozen=event.get("frozen", ()),
                    misfits=misfits,
                    floor=self._plan.conditions.floor,
                    rounding=budgeting.rounding,
                )
                self._report(f"pruned to {100 * sparsity:.6g} % sparsity")
                if kind is not None:
                    self._report(
                        f"{kind}: {reached:.4g} of the dense network's ({asked:.4g} permitted)"
                    )
                for line in receipt_lines(event["receipt"]):
                    self._report(f"  {line}")
            if self._kernel_choice is not None:
                chosen = self._kernel_choice.after_pruning(earlier.get("sparse_kernels"), measured)
                if chosen is not None:
                    event["sparse_kernels"] = chosen
                    self._report(f"  sparse kernels: {sparse_kernels_line(chosen)}")
        return Pruned(sparsity), {
            "units": operation.units_name,
            "target": targets[-1],
            **({} if kind is None else {"target_of": kind}),
            **({} if pattern is None else {"pattern": str(pattern)}),
            "sparsity": sparsity,
            **event,
        }

    def _exchange(self, operation: Exchange, seed: int) -> tuple[Exchanged, dict[str, Any]]:
        trainer, units = self.trainer, self._returning(operation.units, operation.units_name)
        try:
            done = self._events.exchange(
                units, operation.drop, operation.grow, operation.share, seed
            )
        except ScoreError as error:
            raise self._unranked(error) from error
        self._accounts.clear()
        trainer.follow_units()
        sparsity = weight_sparsity(self.layers())
        event = {"units": operation.units_name, "share": operation.share, "sparsity": sparsity}
        return Exchanged(done.units), {**event, **done.event}

    def _release(self, operation: Release) -> tuple[None, dict[str, Any]]:
        trainer, units = self.trainer, self._returning(operation.units, operation.units_name)
        whole = {name: torch.ones_like(alive) for name, alive in units.alive().items()}
        units.apply(trainer.model, trainer.optimiser, trainer.stream.companions, whole)
        self._accounts.clear()
        trainer.use(DENSE)
        sparsity = weight_sparsity(self.layers())
        return None, {"units": operation.units_name, "sparsity": sparsity}

    def _returning(self, kind: type[Units], name: str) -> ReturningUnits:
        """Return the run's units of a kind.

        Raises:
            RunFailed: they are cut out of the network, and cannot return.
        """
        units = self._units_of(kind)
        if not isinstance(units, ReturningUnits):
            raise RunFailed(
                f"{name} that are removed are cut out of the network; they never return"
            )
        return units

    def _unranked(self, error: ScoreError) -> RunFailed | Diverged:
        """Return what scores without a ranking mean: of a network that diverged, its end."""
        finite = all(bool(weight.isfinite().all()) for weight in self._weights().values())
        return (RunFailed if finite else Diverged)(str(error))

    def _account(self, name: str, units: Units) -> Account:
        """Return what the present network consists of, in these units."""
        if name not in self._accounts:
            with self._meter.instrument():
                weights = sum(int(layer["kept"]) for layer in self.layers())
                self._accounts[name] = Account.of(units, weights, self.budgeting.costs)
        return self._accounts[name]

    def _require_removed(self, target: float, kind: str | None, sparsity: float) -> None:
        """Refuse a pruning that has left the dense network whole.

        Raises:
            RunFailed: it has, although something should have been removed.
        """
        if target > 0 and sparsity == 0:
            raise RunFailed(
                f"pruning removed nothing, although {target:.4g} of the {kind or 'weights'} "
                "should have been removed"
            )

    def _shown_to(self, trigger: Trigger) -> Mapping[str, torch.Tensor]:
        """Return what a trigger reads: the weights, or the masks that pruning would give."""
        masks = trigger.watches
        if masks is None:
            return self._weights()
        seed = derive(self._plan.spec.seed, "trigger", self.trainer.position)
        units, budgeting = self._units_of(masks.units), self.budgeting
        return self._events.select(
            units,
            masks.criterion,
            masks.target,
            self._scope(None),
            torch.Generator().manual_seed(seed),
            budgeting.limiter(units, self.name_of(masks.units), budgeting.kind),
        ).kept

    def _scope(self, asked: Scope | Pattern | None) -> Scope | Pattern:
        """Return the distribution of a pruning: the method's, unless a condition replaces it."""
        if self._plan.conditions.ranking == "isomorphic":
            return isomorphic
        return asked or _global_threshold

    def _weights(self) -> dict[str, torch.Tensor]:
        weights = prunable_weights(self.trainer.model)
        return {name: weight.detach() for name, weight in weights.items()}

    def name_of(self, units: type[Units]) -> str:
        """Return the name under which units are registered."""
        return self._registry.name_of("units", units)

    def _units_of(self, kind: type[Units]) -> Units:
        """Return the run's units of a kind, finding them in the model the first time."""
        trainer, name = self.trainer, self.name_of(kind)
        if name not in trainer.units:
            trainer.units[name] = kind(trainer.model, trainer.task.forward)
        return trainer.units[name]

    def layers(self) -> list[dict[str, Any]]:
        """Return how many weights each layer had and has left."""
        return layers(self.trainer.model, self.trainer.units.values(), self._dense_shapes)

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


def _global_threshold(shapes: Mapping[str, torch.Size], sparsity: float) -> None:
    """Rank the variables of all layers together; a `harness.units.Scope`."""


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
