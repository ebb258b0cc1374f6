"""A request for advice: what is wanted, which methods may give it, and where and how they run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.api import as_command
from harness.budget import Budget
from harness.conditions import Conditions
from harness.errors import RequestError
from harness.matrix.executor import Resources
from harness.matrix.request import MatrixRequest
from harness.matrix.suite import (
    Axes,
    Names,
    Suite,
    check_profile,
    check_seeds,
    check_sparsities,
)
from harness.registry import Registry

DENSE = "dense"
"""The method that all others are compared with; it need not be asked for."""

STRUCTURED = ("slim_dense", "snap", "earlycrop_s", "taylor_s")
"""Tried for a budget: a narrow dense network, and methods that remove channels before training,
early in it and late in it. Only channels that are gone make a network faster and smaller."""

UNSTRUCTURED = ("snip", "earlycrop_u", "gmp", "magnitude_u")
"""Tried for a sparsity: methods that remove single weights before training, early in it, all
through it and halfway."""


@dataclass(frozen=True)
class AdviceRequest:
    """What somebody wants advice on.

    Attributes:
        task: its name.
        pruners: the methods to try, or ``["all"]``; None for those that suit what is wanted.
        seeds: of the last round.
        budget: what the network may cost.
        sparsity: fraction of the weights to remove, in place of a budget.
        minutes: begin no further round that would end later; None for no limit.
        tolerance: the loss against dense that is tolerated, in the unit of the metric; None if it
            does not matter.
        profile: of the task.
        settings: changes of all runs that have such a setting, as ``--set`` takes them.
        plugins: files with more tasks or pruners.
        data: folder that tasks read data from.
        results: the results folder.
        executor: its name.
        device: its name.
        jobs: runs at a time; None for as many as fit.
        checkpoint_every: seconds between two checkpoints.

    Raises:
        RequestError: a name or a value is unknown or not permitted.
    """

    task: str
    pruners: Sequence[str] | None
    seeds: Sequence[int]
    budget: str | None = None
    sparsity: float | None = None
    minutes: float | None = None
    tolerance: float | None = None
    profile: str = "embedded"
    settings: Mapping[str, str] = field(default_factory=dict)
    plugins: Sequence[Path] = ()
    data: Path = Path("data")
    results: Path = Path("results")
    executor: str = "local"
    device: str = "auto"
    jobs: int | None = None
    checkpoint_every: float = 60.0

    def __post_init__(self) -> None:
        self.registry.find("task", self.task)
        check_profile(self.profile)
        if (self.budget is None) == (self.sparsity is None):
            raise RequestError(
                "advise takes either a budget, as in --budget latency=0.5, or a --sparsity"
            )
        if self.budget is not None:
            Budget.parse(self.budget)
        if self.sparsity is not None:
            check_sparsities([self.sparsity])
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise RequestError("advise takes one or more different seeds, as in --seeds 0-3")
        check_seeds(self.seeds)
        for name, limit in (("minutes", self.minutes), ("jobs", self.jobs)):
            if limit is not None and not limit > 0:
                raise RequestError(f"{name}: {limit!r} is not greater than 0")
        if self.tolerance is not None and not 0 <= self.tolerance < math.inf:
            raise RequestError(
                f"tolerance {self.tolerance:g} must be a number of at least 0, as in 1"
            )
        if len(self.methods) < 2:
            raise RequestError(
                f"advise compares methods, and {', '.join(self.methods) or DENSE} is only one; "
                "python -m harness run carries out a single method"
            )

    @cached_property
    def registry(self) -> Registry:
        """Finds tasks and pruners."""
        return Registry(self.plugins)

    @cached_property
    def methods(self) -> list[str]:
        """The methods to try, each once.

        Raises:
            RequestError: one is unknown.
        """
        asked = self.pruners
        if asked is None:
            return list(UNSTRUCTURED if self.budget is None else STRUCTURED)
        if list(asked) == ["all"]:
            entries = self.registry.of_kind("pruner").items()
            return [name for name, entry in entries if entry.arguments.get("prunes", True)]
        methods = [name for name in dict.fromkeys(asked) if name != DENSE]
        for name in methods:
            self.registry.find("pruner", name)
        return methods

    @property
    def target(self) -> str:
        """What is wanted, as in ``macs=0.5`` or ``sparsity=0.9``."""
        return f"sparsity={self.sparsity:g}" if self.budget is None else self.budget

    def settings_of(self, pruner: str) -> dict[str, str]:
        """Return the settings of a method's runs.

        A setting that no method has is one of all of them, and so is refused when they are planned.
        """
        common = {*self.registry.find("task", self.task).declared, *Conditions.declared()}
        own = {
            name: {*self.registry.find("pruner", name).declared} for name in (*self.methods, DENSE)
        }
        known = common.union(*own.values())
        return {
            name: value
            for name, value in self.settings.items()
            if name in common or name in own[pruner] or name not in known
        }

    def matrix(self, pruners: Iterable[str], seeds: Iterable[int]) -> MatrixRequest:
        """Return the request for the runs of some methods, or of `DENSE`, with some seeds."""
        seeds = tuple(seeds)
        axes = [
            Axes(
                Names((self.task,)),
                Names((pruner,)),
                sparsities=(self.sparsity,),
                budgets=(self.budget and str(Budget.parse(self.budget)),),
                seeds=seeds,
                options=(self.settings_of(pruner),),
            )
            for pruner in pruners
        ]
        return MatrixRequest(
            Suite(f"advise-{self.task}", f"Advice on {self.task}", tuple(axes), self.profile),
            command=self.command(),
            plugins=self.plugins,
            data=self.data,
            results=self.results,
            executor=self.executor,
            resources=Resources(jobs=self.jobs, device=self.device),
            checkpoint_every=self.checkpoint_every,
            # The advice needs no cost of the finished networks beyond the budget, which is measured
            # or counted when the network is pruned; and measuring waits for a quiet machine.
            measure=None if self.profile == "smoke" else "never",
        )

    def command(self, seeds: int | None = None) -> str:
        """Return the command that makes this request.

        Args:
            seeds: how many the last round has instead, if there are not so many already.
        """
        asked = list(self.seeds)
        further = itertools.count(max(asked) + 1)
        asked += itertools.islice(further, max(0, (seeds or 0) - len(asked)))
        words = {
            **self._what,
            "pruners": None if self.pruners is None else ",".join(self.pruners),
            "seeds": _as_text(asked),
            "minutes": self.minutes,
            "tolerance": self.tolerance,
            **self._where,
            "executor": self.executor,
            "jobs": self.jobs,
        }
        return as_command("advise", words, self.settings, self.plugins)

    def run_command(self, pruner: str, seed: int) -> str:
        """Return the command that makes the network of a method."""
        words = {**self._what, "pruner": pruner, "seed": seed, **self._where}
        return as_command("run", words, self.settings_of(pruner), self.plugins)

    @property
    def _what(self) -> dict[str, Any]:
        return {"task": self.task, "budget": self.budget, "sparsity": self.sparsity}

    @property
    def _where(self) -> dict[str, Any]:
        return {
            "profile": None if self.profile == "embedded" else self.profile,
            "results": self.results,
            "data": self.data,
            "device": self.device,
            "checkpoint-every": self.checkpoint_every,
        }


def _as_text(seeds: Sequence[int]) -> str:
    """Return seeds as ``--seeds`` takes them, as a range if they are one."""
    first, last = seeds[0], seeds[-1]
    if len(seeds) > 1 and list(seeds) == list(range(first, last + 1)):
        return f"{first}-{last}"
    return ",".join(map(str, seeds))
