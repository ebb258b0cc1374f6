from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruners.schedules import cubic_sparsity, equal_parts, geometric_steps, halving_steps


@pytest.mark.parametrize(
    ("sparsity", "expected"),
    [
        (0.98, [0.50, 0.74, 0.86, 0.92, 0.95, 0.965, 0.98]),
        (0.90, [0.50, 0.70, 0.80, 0.85, 0.875, 0.8875, 0.90]),
        (0.88, [0.50, 0.69, 0.785, 0.8325, 0.85625, 0.868125, 0.88]),
        (0.30, [0.15, 0.225, 0.2625, 0.28125, 0.290625, 0.2953125, 0.30]),
    ],
)
def test_halving_steps_are_the_published_numbers(sparsity: float, expected: list[float]) -> None:
    assert halving_steps(sparsity) == pytest.approx(expected)


def test_no_halving_step_is_one_shot() -> None:
    assert halving_steps(0.98, steps=0) == [0.98]


def test_geometric_steps_keep_the_same_fraction_in_each_round() -> None:
    assert geometric_steps(0.875, rounds=3) == pytest.approx([0.5, 0.75, 0.875])
    assert geometric_steps(0.9, rounds=1) == [0.9]


@given(st.just(0.0) | st.floats(1e-6, 1, exclude_max=True), st.integers(1, 100))
def test_schedules_never_decrease_and_end_at_the_target(sparsity: float, steps: int) -> None:
    for schedule in (halving_steps(sparsity, steps), geometric_steps(sparsity, steps)):
        assert schedule == sorted(schedule)
        assert schedule[-1] == sparsity


@pytest.mark.parametrize(
    ("steps", "parts", "expected"),
    [(9, 3, [3, 3, 3]), (8, 3, [2, 3, 3]), (2, 20, [1, 1]), (0, 20, [1])],
)
def test_a_training_has_no_more_parts_than_steps(
    steps: int, parts: int, expected: list[int]
) -> None:
    assert equal_parts(steps, parts) == expected


def test_the_cubic_schedule_removes_most_at_first() -> None:
    moments = [cubic_sparsity(0.8, progress) for progress in (0, 0.25, 0.5, 1)]
    assert moments == pytest.approx([0, 0.4625, 0.7, 0.8])
