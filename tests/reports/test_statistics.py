"""Statistics across tasks, by hand and against the authors' package."""

from __future__ import annotations

import numpy as np
import pytest

from reports.ranking import (
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
)


def test_the_interquartile_mean_leaves_out_a_quarter_on_each_side() -> None:
    scores = [np.array([-100.0, 1, 2, 3]), np.array([4, 5, 6, 100.0])]
    assert interquartile_mean(scores) == pytest.approx(3.5)


def test_a_performance_profile_is_the_share_above() -> None:
    profile = performance_profile(
        [np.array([0.2, 0.4]), np.array([0.6, 0.8])], np.array([0.0, 0.4, 0.7, 1.0])
    )
    assert profile.tolist() == [1.0, 0.5, 0.25, 0.0]


def test_improvement_counts_pairs_and_half_the_ties() -> None:
    first, second = [np.array([3.0, 1.0])], [np.array([1.0, 2.0])]
    # 3 > 1, 3 > 2, 1 = 1, 1 < 2
    assert probability_of_improvement(first, second) == pytest.approx(2.5 / 4)


def test_improvement_is_averaged_over_tasks_whatever_their_seeds() -> None:
    first = [np.ones(3), np.zeros(1)]
    second = [np.zeros(2), np.ones(4)]
    assert probability_of_improvement(first, second) == pytest.approx(0.5)


def test_the_estimates_are_those_of_rliable() -> None:
    metrics = pytest.importorskip("rliable.metrics")
    random = np.random.default_rng(0)
    scores = {"a": random.normal(0.6, 0.2, (5, 4)), "b": random.normal(0.5, 0.2, (5, 4))}
    first, second = list(scores["a"].T), list(scores["b"].T)
    assert interquartile_mean(first) == pytest.approx(metrics.aggregate_iqm(scores["a"]))
    over = probability_of_improvement(first, second)
    assert over == pytest.approx(metrics.probability_of_improvement(scores["a"], scores["b"]))
