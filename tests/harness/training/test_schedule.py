"""The learning rate at known positions, and the length of each schedule."""

from __future__ import annotations

import math

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from harness.training.optimization import SCHEDULES, Equal, Official, OneCycle, build_schedule

STEPS = 120


@pytest.mark.parametrize(
    ("position", "rate"),
    [
        (0, 0.2),  # from the first step
        (29, 0.2),
        (60, 0.2),  # to the middle
        (80, 0.15),  # a third of the way down the cosine
        (90, 0.1),
        (119, 0.2 * 0.5 * (1 - math.cos(math.pi / 60))),  # one step before zero
    ],
)
def test_equal_is_constant_to_the_middle_and_falls_to_zero(position: int, rate: float) -> None:
    at = Equal(0.2, STEPS).at(position, None)
    assert at.learning_rate == pytest.approx(rate, abs=1e-12)
    assert at.momentum is None


@pytest.mark.parametrize(
    ("position", "rate"),
    [
        (0, 0.2 / 6),  # the first of six steps
        (2, 0.1),
        (5, 0.2),
        (90, 0.1),  # in the cosine, as without a warm-up
    ],
)
def test_a_warm_up_rises_over_its_share_of_the_budget(position: int, rate: float) -> None:
    schedule = build_schedule("equal", 0.2, STEPS, warmup=0.05)
    assert schedule.at(position, None).learning_rate == pytest.approx(rate)


@pytest.mark.parametrize("schedule", [Equal, OneCycle])
def test_pruning_neither_restarts_nor_extends_the_schedule(
    schedule: type[Equal] | type[OneCycle],
) -> None:
    plan = schedule(0.2, STEPS)
    assert {plan.length(anchor) for anchor in (None, 0, 30)} == {STEPS}
    for position in range(30, STEPS):
        assert plan.at(position, 30) == plan.at(position, None)


@pytest.mark.parametrize("steps", [2, 7, STEPS])
def test_one_cycle_equals_that_of_torch(steps: int) -> None:
    optimiser = torch.optim.SGD([torch.zeros((), requires_grad=True)], lr=1.0, momentum=0.9)
    cycle = OneCycleLR(optimiser, max_lr=0.2, total_steps=steps)
    ours = OneCycle(0.2, steps)
    for position in range(steps):
        group = optimiser.param_groups[0]
        assert ours.at(position, None) == pytest.approx((group["lr"], group["momentum"]))
        optimiser.step()
        if position + 1 < steps:
            cycle.step()


def test_official_is_constant_for_the_dense_network() -> None:
    official = Official(0.2, STEPS)
    assert official.length(None) == STEPS
    assert {official.at(position, None) for position in range(STEPS)} == {(0.2, None)}


def test_official_grants_a_pruned_network_one_cycle_over_another_whole_budget() -> None:
    official, cycle = Official(0.2, STEPS), OneCycle(0.2, STEPS)
    assert official.length(30) == 30 + STEPS
    assert official.length(0) == STEPS
    assert [official.at(30 + step, 30) for step in range(STEPS)] == [
        cycle.at(step, None) for step in range(STEPS)
    ]


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_shortest_budgets_have_rates_as_well(name: str, steps: int) -> None:
    schedule = SCHEDULES[name](0.2, steps)
    rates = [schedule.at(position, None).learning_rate for position in range(steps)]
    assert all(0 <= rate <= 0.2 for rate in rates)
