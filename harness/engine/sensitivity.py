"""How much each layer or group of channels can lose alone, found by really removing it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from harness.costs.meter import CostMeter
from harness.engine.rehearsal import first_pruning
from harness.errors import RequestError, place
from harness.output import Report
from harness.prunable import prunable_weights
from harness.pruning.event import PruningEvents
from harness.pruning.network_costs import NetworkCosts
from harness.pruning.scoring_cost import ScoringCost
from harness.registry import Registry
from harness.results.sensitivity import Part, Scan, Trial, can_lose
from harness.scoring import Criterion, Scores
from harness.seeds import derive
from harness.spec import Plan
from harness.task import Task
from harness.trained_network import TrainedNetwork
from harness.training.evaluation import evaluate, require_number
from harness.training.trainer import Trainer
from harness.units import BudgetedUnits, Prospect, ScoreError, Units, require_shape


@dataclass(frozen=True)
class Tried:
    """What is removed from each part, and in which order: the first pruning of a method."""

    plan: Plan
    units: type[Units]
    units_name: str
    criterion: Criterion


def what_is_tried(plan: Plan, registry: Registry, task: Task) -> Tried:
    """Return the units and the criterion of a method, without training.

    Raises:
        RequestError: the method removes nothing, or has no criterion that scores a given network.
    """
    pruner = plan.spec.pruner
    program = partial(plan.pruner.load(), **plan.options)
    pruning = first_pruning(
        program,
        plan.spec,
        plan.recipe.epochs,
        task.steps_per_epoch,
        plan.spec.sparsity,
        partial(registry.name_of, "units"),
    )
    if pruning is None and not plan.pruner.arguments.get("prunes", True):
        raise RequestError(f"{pruner} removes nothing, so it has no criterion to remove by")
    if pruning is None:
        raise RequestError(
            f"the first pruning of {pruner} depends on its training, so it has no criterion for a "
            "network that is trained already"
        )
    if not callable(pruning.criterion):
        raise RequestError(
            f"{pruner} scores while it trains, so it has no criterion for a network that is "
            "trained already"
        )
    return Tried(plan, pruning.units, pruning.units_name, pruning.criterion)


class SensitivityScan:
    """Tries on a trained network what each of its parts can lose.

    Of one part at a time, the weights or channels with the lowest scores are removed, masked or
    cut as by a run, and the network is evaluated on the validation data. It is not trained in
    between; the running statistics of batch normalisation stay those of the whole network.

    Args:
        network: the trained network.
        plan: any plan for its task and settings.
        task: the task of the plan, built.
        report: receives lines of progress.

    Raises:
        RequestError: the network is damaged, or another one.
        RunFailed: the whole network has no metric.
    """

    def __init__(self, network: TrainedNetwork, plan: Plan, task: Task, report: Report) -> None:
        # Pruned networks produce denormal numbers, which are slow on a CPU.
        torch.set_flush_denormal(True)
        self._trainer = Trainer(task, plan.spec.seed, plan.conditions.schedule, initial=network)
        self._metric: str = plan.task.arguments["metric"]
        self._goal: str = plan.task.arguments["goal"]
        self._report = report
        batches = task.scoring_batches(plan.spec.seed)
        meter = CostMeter(task.device, measure_energy=False)
        self._events = PruningEvents(
            self._trainer, batches, plan.conditions, meter.instrument, ScoringCost(meter, task)
        )
        self._costs = NetworkCosts(
            task,
            batches[0],
            network.weights.with_name("times.json"),
            contextlib.nullcontext,
            seconds=0.0,
            alone=contextlib.nullcontext,
            interrupted=lambda: False,
        )
        metrics = evaluate(task, self._trainer.model, "validation", self._metric)
        require_number(task, metrics, self._metric, "validation")
        self.dense = metrics[self._metric]

    def scan(self, tried: Tried, fractions: Sequence[float], tolerance: float) -> Scan:
        """Return what each part can lose.

        Args:
            tried: the units and the criterion.
            fractions: of each part, in increasing order.
            tolerance: the loss of the metric that is tolerated, relative to the whole network.

        Raises:
            Skip: the units do not apply to the network, or it cannot be differentiated as often as
                the criterion needs.
            RequestError: the units cannot be removed one tensor at a time.
            ScoreError: the scores cannot be ranked.
        """
        pruner = tried.plan.pruner
        units = tried.units(self._trainer.model, self._trainer.task.forward)
        if not isinstance(units, BudgetedUnits):
            raise RequestError(
                f"{pruner.name} removes {tried.units_name}, which cannot show what a network would "
                "be without some of them (prospect)"
            )
        scores, whole = self._scores(units, tried)
        parts: list[Part] = []
        for number, (name, score) in enumerate(scores.items(), start=1):
            self._report(f"{pruner.name}: {name} ({number} of {len(scores)})")
            parts.append(self._part(units, name, score, fractions, tolerance))
        return {
            "pruner": pruner.name,
            "title": pruner.arguments.get("title"),
            "units": tried.units_name,
            "criterion": place(tried.criterion).partition(" ")[0],
            "parts": parts,
            "whole": whole,
        }

    def _scores(self, units: BudgetedUnits, tried: Tried) -> tuple[Scores, dict[str, str]]:
        """Return the scores of the parts that can lose something, and why others cannot."""
        seed = derive(tried.plan.spec.seed, "sensitivity")
        generator = torch.Generator().manual_seed(seed)
        scores, frozen, where = self._events.scores_of(units, tried.criterion, generator)
        alive, whole = units.alive(), dict(units.pinned())
        found: Scores = {}
        try:
            for name, mask in alive.items():
                if name not in scores:
                    whole[name] = "no score"
                elif name in frozen:
                    whole[name] = "frozen, and ranked by gradients"
                elif mask.numel() < 2:
                    whole[name] = f"one of its {tried.units_name} is all it has"
                else:
                    require_shape(scores, name, tuple(mask.shape))
                    if not scores[name].isfinite().all():
                        raise ScoreError(
                            f"the criterion gave {name!r} a score that is not a finite number"
                        )
                    found[name] = scores[name]
        except ScoreError as error:
            raise ScoreError(f"{error}: {where}") from error
        return found, whole

    def _part(
        self,
        units: BudgetedUnits,
        name: str,
        score: Tensor,
        fractions: Sequence[float],
        tolerance: float,
    ) -> Part:
        size = score.numel()
        smallest = units.smallest({name}, 0.0, 1)
        at_most = min(size - 1, size - int(smallest[name].count_nonzero()))
        # Among equal scores the later ones go first, as in a run.
        best_first = score.flatten().argsort(descending=True, stable=True)
        trials: list[Trial] = []
        for fraction in fractions:
            removed = min(round(fraction * size), at_most)
            if trials and trials[-1]["removed"] == removed:
                trials.append({**trials[-1], "fraction": fraction})
                continue
            kept = units.alive()
            mask = torch.ones(size, dtype=torch.bool, device=score.device)
            mask[best_first[size - removed :]] = False
            kept[name] = mask.view_as(kept[name])
            trials.append(self._trial(fraction, removed, units.prospect(kept)))
        without = units.prospect(smallest)
        return {
            "name": name,
            "size": size,
            "weights": self._weights_gone(without),
            "macs": self._macs_gone(without),
            "trials": trials,
            "can_lose": can_lose(trials, self.dense, self._goal, tolerance),
        }

    def _trial(self, fraction: float, removed: int, prospect: Prospect) -> Trial:
        metrics = evaluate(self._trainer.task, prospect.network(), "validation", self._metric)
        metric = metrics[self._metric]
        return {
            "fraction": fraction,
            "removed": removed,
            "weights": self._weights_gone(prospect),
            "macs": self._macs_gone(prospect),
            "metric": metric if math.isfinite(metric) else None,
        }

    def _weights_gone(self, prospect: Prospect) -> float:
        model = self._trainer.model
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        weights = {names[id(each)]: each.numel() for each in prunable_weights(model).values()}
        left = sum(prospect.elements[name] for name in weights)
        return 1 - left / sum(weights.values())

    def _macs_gone(self, prospect: Prospect) -> float:
        return 1 - self._costs.macs(prospect) / self._costs.dense("macs")
