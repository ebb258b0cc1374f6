"""Statistics across tasks, by hand and against the authors' package."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap

from harness.results.intervals import mean_interval, ratio_interval
from reports.statistics import (
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
    stratified_bootstrap,
)


def test_a_mean_has_the_interval_of_students_t() -> None:
    interval = mean_interval([1.0, 2.0, 3.0])
    # 4.3027 is the 97.5 % quantile of t with two degrees of freedom; the deviation is 1.
    assert interval.mean == 2.0
    assert interval.high == pytest.approx(2 + 4.302653 / 3**0.5)
    assert interval.low == pytest.approx(2 - 4.302653 / 3**0.5)
    assert interval.decides


def test_one_value_has_no_interval() -> None:
    interval = mean_interval([5.0])
    assert (interval.mean, interval.low, interval.high, interval.n) == (5.0, None, None, 1)


def test_two_seeds_decide_nothing() -> None:
    assert not mean_interval([1.0, 1.0]).decides


def test_ratios_are_averaged_in_logarithms() -> None:
    interval = ratio_interval([0.5, 2.0])
    assert interval.mean == pytest.approx(1.0)
    assert interval.low is not None
    assert interval.high is not None
    assert interval.low * interval.high == pytest.approx(1.0)


def test_the_interquartile_mean_leaves_out_a_quarter_on_each_side() -> None:
    assert interquartile_mean(np.array([-100.0, 1, 2, 3, 4, 5, 6, 100.0])) == pytest.approx(3.5)


def test_the_bootstrap_draws_within_each_task() -> None:
    """Every draw has both tasks: mixing them up would spread the mean."""
    interval = stratified_bootstrap(
        lambda scores: scores.mean(axis=-1), [np.array([0.0, 0.0]), np.array([1.0, 1.0])]
    )
    assert (interval.mean, interval.low, interval.high, interval.n) == (0.5, 0.5, 0.5, 2)


def test_the_bootstrap_of_two_values_spans_both() -> None:
    interval = stratified_bootstrap(lambda scores: scores.mean(axis=-1), [np.array([0.0, 1.0])])
    assert (interval.mean, interval.low, interval.high) == (0.5, 0.0, 1.0)


def test_a_performance_profile_is_the_share_above() -> None:
    profile = performance_profile(
        [np.array([0.2, 0.4]), np.array([0.6, 0.8])], np.array([0.0, 0.4, 0.7, 1.0])
    )
    assert profile.tolist() == [1.0, 0.5, 0.25, 0.0]


def test_improvement_counts_pairs_and_half_the_ties() -> None:
    first, second = [np.array([3.0, 1.0])], [np.array([1.0, 2.0])]
    # 3 > 1, 3 > 2, 1 = 1, 1 < 2
    assert probability_of_improvement(first, second).mean == pytest.approx(2.5 / 4)


def test_improvement_is_averaged_over_tasks_whatever_their_seeds() -> None:
    first = [np.ones(3), np.zeros(1)]
    second = [np.zeros(2), np.ones(4)]
    assert probability_of_improvement(first, second).mean == pytest.approx(0.5)


@pytest.fixture
def scores() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {"a": random.normal(0.6, 0.2, (5, 4)), "b": random.normal(0.5, 0.2, (5, 4))}


def test_the_estimates_are_those_of_rliable(scores: dict[str, np.ndarray]) -> None:
    metrics = pytest.importorskip("rliable.metrics")
    first, second = list(scores["a"].T), list(scores["b"].T)
    ours = stratified_bootstrap(interquartile_mean, first).mean
    assert ours == pytest.approx(metrics.aggregate_iqm(scores["a"]))
    over = probability_of_improvement(first, second).mean
    assert over == pytest.approx(metrics.probability_of_improvement(scores["a"], scores["b"]))


def test_the_interval_is_that_of_scipy(scores: dict[str, np.ndarray]) -> None:
    """Of one task, since scipy knows no strata; rliable's own bootstrap fails with pandas 3."""
    one_task = scores["a"][:, 0]
    theirs = bootstrap(
        (one_task,), interquartile_mean, n_resamples=20000, method="percentile", rng=0
    ).confidence_interval
    ours = stratified_bootstrap(interquartile_mean, [one_task], draws=20000)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)
