"""How a run keeps its budget: what it can reach, what each pruning may leave, what is reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from harness import record
from harness.budget import written
from harness.errors import Skip
from harness.operations import Prune
from harness.pruning.event import Limiter, no_limit
from harness.pruning.network_costs import NetworkCosts
from harness.scoring import scoring_mode
from harness.spec import Plan
from harness.task import Task
from harness.units import BudgetedUnits, Kept, Limit, Units


class Budgeting:
    """The budget of one run, which need not have one.

    Args:
        plan: what is run.
        costs: what the network costs.
        report: receives lines of progress.
    """

    def __init__(self, plan: Plan, costs: NetworkCosts, report: Callable[[str], None]) -> None:
        self.costs = costs
        self.rounding = plan.conditions.rounding
        """The number of which all numbers of channels are multiples."""
        self._budget = plan.spec.budget
        self._sparsity = plan.spec.sparsity
        self._floor = plan.conditions.floor
        self._is_shuffled = plan.conditions.masks == "shuffled"
        self._report = report

    @property
    def kind(self) -> str | None:
        """What the budget limits; None if the run has a sparsity instead."""
        return None if self._budget is None else self._budget.kind

    @property
    def sparsity(self) -> float:
        """The fraction to remove: of the weights, or of what the budget limits.

        It is negative if the budget is larger than the dense network.
        """
        if self._budget is None:
            return self._sparsity
        return 1 - self._budget.fraction(self.costs.dense(self._budget.kind))

    def limiter(self, units: Units, name: str, kind: str | None) -> Limiter:
        """Return a function that gives what the network may cost for each target of a pruning.

        Args:
            units: what is pruned.
            name: their registered name.
            kind: the cost of which targets are fractions; None for prunable weights.

        Raises:
            Skip: the units obey no budget of this kind.
        """
        if self.rounding > 1 and units.nodes() is None:
            raise Skip(f"rounding={self.rounding} is for channels, and these are {name}")
        if kind is None:
            return no_limit
        known = getattr(units, "obeys", ())
        if kind not in known:
            others = f"; they obey {', '.join(known)}" if known else ""
            raise Skip(f"{name} obey no budget of {kind}{others}")
        if self._is_shuffled and kind == "bytes":
            raise Skip(
                "masks=shuffled: changes the size of the file, so no budget of bytes is kept"
            )
        cost, dense = self.costs.of(kind, name), self.costs.dense(kind)
        return lambda target: Limit(kind, cost, (1 - target) * dense)

    def share(self, units: Units, name: str, kind: str) -> float:
        """Return a cost of the network as a fraction of the dense network's."""
        assert isinstance(units, BudgetedUnits)
        cost = self.costs.of(kind, name)(units.prospect(units.alive()))
        return cost / self.costs.dense(kind)

    def require_reachable(self, pruning: Prune, model: nn.Module, task: Task) -> None:
        """Report what the budget's kind can reach, and refuse a budget beyond.

        Args:
            pruning: the first pruning of the method.
            model: the dense network.
            task: what it is used for.

        Raises:
            Skip: the budget is out of reach, or the units obey none of its kind.
        """
        if (budget := self._budget) is None:
            return
        kind, units = budget.kind, pruning.units(model, task.forward)
        self.limiter(units, pruning.units_name, kind)
        assert isinstance(units, BudgetedUnits)
        with scoring_mode(model, batch_statistics=False), units.as_variables(model) as variables:
            scored = set(variables)
        fewest = units.smallest(scored, self._floor, self.rounding)
        smallest = units.prospect(fewest)
        dense, least = self.costs.dense(kind), self.costs.of(kind, pruning.units_name)(smallest)
        reach = (
            f"from {written(kind, least, 3)} ({least / dense:.3g} of dense) "
            f"to {written(kind, dense, 3)} (dense)"
        )
        asked = budget.fraction(dense) * dense
        if not least <= asked * (1 + 1e-9) < dense:
            nearest, because = dense, ""
            if asked < least:
                nearest = least
                without = units.smallest(scored, 0.0, self.rounding)
                if _number(without) < _number(fewest):
                    because = f": floor={self._floor:g} protects a part of every layer"
            raise Skip(
                f"the budget {budget} cannot be reached: this network can have {kind} {reach}; "
                f"the nearest is {kind}={written(kind, nearest, 3)}{because}"
            )
        self._report(f"budget {budget}: this network can have {kind} {reach}")

    def reached(self, units: Mapping[str, Units]) -> record.Budget | None:
        """Return what the record says of the budget, None without one.

        Args:
            units: the run's units by their registered names.
        """
        if (budget := self._budget) is None:
            return None
        dense = self.costs.dense(budget.kind)
        shares = [self.share(each, name, budget.kind) for name, each in units.items()]
        return {
            "kind": budget.kind,
            "asked": budget.fraction(dense),
            "reached": min(shares, default=1.0),
            "dense": dense,
        }


def _number(kept: Kept) -> int:
    """Return how many variables are kept."""
    return sum(int(mask.sum()) for mask in kept.values())
