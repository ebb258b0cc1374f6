"""What the operations of a run that remove units, or let them return, do to the network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from harness.costs.meter import CostMeter
from harness.engine.budgeting import Budgeting
from harness.engine.kernel_choice import KernelChoice
from harness.errors import Diverged, RunFailed
from harness.operations import Exchange, Exchanged, Prune, Pruned, Release
from harness.prunable import dense_shapes, layers, prunable_weights, weight_sparsity
from harness.pruning.diagnostics import TangentKernel
from harness.pruning.event import PruningEvents
from harness.pruning.receipt import Account, receipt
from harness.pruning.scoring_cost import ScoringCost
from harness.registry import Registry
from harness.results.receipts import receipt_lines, sparse_kernels_line
from harness.seeds import derive
from harness.spec import Plan
from harness.task import Batch
from harness.training.kernels import DENSE
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


class Pruning:
    """Removes units of one network, exchanges them, and lets them return.

    Args:
        plan: what is run.
        registry: finds units by name.
        trainer: the network in training.
        batches: the scoring batches.
        meter: leaves the suite's own instruments out of the method's costs.
        budgeting: the budget of the run.
        kernel: is measured before and after prunings; None if nobody asked.
        kernel_choice: chooses kernels after prunings; None if all are dense.
        report: receives lines of progress.
    """

    def __init__(
        self,
        plan: Plan,
        registry: Registry,
        trainer: Trainer,
        batches: Sequence[Batch],
        meter: CostMeter,
        budgeting: Budgeting,
        kernel: TangentKernel | None,
        kernel_choice: KernelChoice | None,
        report: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._registry = registry
        self._trainer = trainer
        self._meter = meter
        self._budgeting = budgeting
        self._kernel = kernel
        self._kernel_choice = kernel_choice
        self._report = report
        self._dense_shapes = dense_shapes(trainer.model)
        self._dense = sum(math.prod(shape) for shape in self._dense_shapes.values())
        self._events = PruningEvents(
            trainer, batches, plan.conditions, meter.instrument, ScoringCost(meter, trainer.task)
        )
        self._accounts: dict[str, Account] = {}
        """Of the present network, by the name of units; empty if they were not taken."""

    def prune(
        self, operation: Prune, seed: int, earlier: Mapping[str, Any]
    ) -> tuple[Pruned, dict[str, Any]]:
        """Remove units until the targets are reached.

        Args:
            operation: what to remove.
            seed: of random numbers.
            earlier: what the record says of the same event in an earlier attempt; may be empty.

        Returns:
            What the method gets, and what the record says of the event.

        Raises:
            RunFailed: the scores cannot be ranked, or nothing was removed.
            Diverged: the scores cannot be ranked, because the network has diverged.
        """
        trainer, measured = self._trainer, operation.measured
        if measured and trainer.position % trainer.task.steps_per_epoch:
            self.measure_kernel()
        budgeting, units = self._budgeting, self.units_of(operation.units)
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
        with self._meter.instrument(takes_memory=measured or self._kernel_choice is not None):
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

    def exchange(self, operation: Exchange, seed: int) -> tuple[Exchanged, dict[str, Any]]:
        """Remove a share of each tensor's units, and let as many others return; see `prune`."""
        trainer, units = self._trainer, self._returning(operation.units, operation.units_name)
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

    def release(self, operation: Release) -> tuple[None, dict[str, Any]]:
        """Let all removed units return; see `prune`."""
        trainer, units = self._trainer, self._returning(operation.units, operation.units_name)
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
        units = self.units_of(kind)
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
                self._accounts[name] = Account.of(units, weights, self._budgeting.costs)
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

    def measure_kernel(self) -> None:
        """Measure the kernel with which the next one is compared."""
        if self._kernel is not None:
            with self._meter.instrument():
                self._kernel.measure(self._trainer.model, self._trainer.masks())

    def shown_to(self, trigger: Trigger) -> Mapping[str, torch.Tensor]:
        """Return what a trigger reads: the weights, or the masks that pruning would give."""
        masks = trigger.watches
        if masks is None:
            return self._weights()
        seed = derive(self._plan.spec.seed, "trigger", self._trainer.position)
        units, budgeting = self.units_of(masks.units), self._budgeting
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
        weights = prunable_weights(self._trainer.model)
        return {name: weight.detach() for name, weight in weights.items()}

    def name_of(self, units: type[Units]) -> str:
        """Return the name under which units are registered."""
        return self._registry.name_of("units", units)

    def units_of(self, kind: type[Units]) -> Units:
        """Return the run's units of a kind, finding them in the model the first time."""
        trainer, name = self._trainer, self.name_of(kind)
        if name not in trainer.units:
            trainer.units[name] = kind(trainer.model, trainer.task.forward)
        return trainer.units[name]

    def layers(self) -> list[dict[str, Any]]:
        """Return how many weights each layer had and has left."""
        return layers(self._trainer.model, self._trainer.units.values(), self._dense_shapes)


def _global_threshold(shapes: Mapping[str, torch.Size], sparsity: float) -> None:
    """Rank the variables of all layers together; a `harness.units.Scope`."""
