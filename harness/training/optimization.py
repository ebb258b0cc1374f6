"""Optimizers and learning-rate schedules, the same for every method, dense included."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from harness.settings import Recipe


def build_optimiser(parameters: Iterable[Tensor], recipe: Recipe) -> torch.optim.Optimizer:
    """Return the optimizer of a recipe, with its learning rate and weight decay."""
    rate, decay = recipe.learning_rate, recipe.weight_decay
    match recipe.optimiser:
        case "adam":
            return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
        case "adamw":
            return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
        case "sgd":
            return torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=decay)


class Rate(NamedTuple):
    """The learning rate and momentum of one optimizer step."""

    learning_rate: float
    momentum: float | None
    """Momentum, or Adam's first beta; None leaves it unchanged."""


class Schedule(Protocol):
    """A learning rate for every position (in steps) of a run.

    ``anchor`` is the position of the last pruning or rewinding, None before the first; only
    `Official` uses it.
    """

    def length(self, anchor: int | None) -> int:
        """Return the position at which the run ends."""

    def at(self, position: int, anchor: int | None) -> Rate:
        """Return the rate of the step that starts at a position."""


class Equal:
    """Constant from the first step to the middle, then cosine to zero.

    Pruning never restarts it. So a method may prune anywhere in the constant part under equal
    conditions, and a trigger there watches training and not the schedule. The first epoch belongs
    to the constant part because the lazy-regime trigger compares all later ones with it.

    Args:
        peak: the constant rate.
        steps: the budget.
        warmup: the share of the budget over which the rate first rises from zero.
    """

    def __init__(self, peak: float, steps: int, warmup: float = 0.0) -> None:
        self._peak = peak
        self._steps = steps
        self._warmup = warmup

    def length(self, anchor: int | None) -> int:
        """Return the budget."""
        return self._steps

    def at(self, position: int, anchor: int | None) -> Rate:
        """Return the rate at a position."""
        rising = (position + 1) / self._steps
        progress = position / self._steps
        if rising < self._warmup:
            factor = rising / self._warmup
        elif progress <= 0.5:
            factor = 1.0
        else:
            factor = 0.5 * (1 + math.cos(math.pi * (2 * progress - 1)))
        return Rate(self._peak * factor, None)


class OneCycle:
    """PyTorch's OneCycleLR with its defaults over the whole budget, for every method."""

    def __init__(self, peak: float, steps: int) -> None:
        parameter = torch.zeros((), requires_grad=True)
        optimiser = torch.optim.Adam([parameter], lr=peak)
        cycle = OneCycleLR(optimiser, max_lr=peak, total_steps=max(steps, 2))
        self._steps = steps
        self._rates: list[Rate] = []
        for _ in range(steps):
            group = optimiser.param_groups[0]
            self._rates.append(Rate(group["lr"], group["betas"][0]))
            optimiser.step()
            if len(self._rates) < steps:
                cycle.step()

    def length(self, anchor: int | None) -> int:
        """Return the budget."""
        return self._steps

    def at(self, position: int, anchor: int | None) -> Rate:
        """Return the rate at a position."""
        return self._rates[position]


class Official:
    """The official code's schedule: constant until pruned, then One-Cycle over a whole budget.

    It treats methods unequally, and is kept for comparison: the dense network never gets
    One-Cycle, and a method that prunes early trains longer by the epochs before it prunes.
    """

    def __init__(self, peak: float, steps: int) -> None:
        self._peak = peak
        self._steps = steps
        self._cycle = OneCycle(peak, steps)

    def length(self, anchor: int | None) -> int:
        """Return the budget, counted from the last pruning."""
        return self._steps + (anchor or 0)

    def at(self, position: int, anchor: int | None) -> Rate:
        """Return the rate at a position."""
        if anchor is None:
            return Rate(self._peak, None)
        return self._cycle.at(position - anchor, None)


SCHEDULES: dict[str, type[Equal] | type[OneCycle] | type[Official]] = {
    "equal": Equal,
    "onecycle": OneCycle,
    "official": Official,
}


def build_schedule(name: str, peak: float, steps: int, warmup: float = 0.0) -> Schedule:
    """Return a schedule by name; only `Equal` has a warm-up that can be set."""
    if warmup:
        return Equal(peak, steps, warmup)
    return SCHEDULES[name](peak, steps)
