"""Means, differences paired by seed, and how sure they are."""

from __future__ import annotations

import math

import pytest
from scipy.stats import ttest_1samp, ttest_ind

from harness.results.intervals import (
    contrast,
    difference,
    holm,
    mean_interval,
    paired,
    ratio,
    ratio_interval,
    seeds_to_decide,
    stratified,
)


def test_a_mean_has_the_interval_of_students_t() -> None:
    interval = mean_interval([1.0, 2.0, 3.0])
    # 4.3027 is the 97.5 % quantile of t with two degrees of freedom; the deviation is 1.
    assert interval.mean == 2.0
    assert interval.high == pytest.approx(2 + 4.302653 / 3**0.5)
    assert interval.low == pytest.approx(2 - 4.302653 / 3**0.5)
    assert interval.decides


@pytest.mark.parametrize("scale", [1e300, 1e-300])
def test_squares_neither_overflow_nor_vanish(scale: float) -> None:
    interval = mean_interval([1.0 * scale, 2.0 * scale, 3.0 * scale])
    assert interval.high == pytest.approx((2 + 4.302653 / 3**0.5) * scale, rel=1e-6)


def test_a_sum_beyond_all_numbers_has_a_mean() -> None:
    assert mean_interval([1.2e308, 1.2e308]).mean == pytest.approx(1.2e308)


def test_a_ratio_beyond_all_numbers_stays_finite() -> None:
    found = ratio({0: 1e300, 1: 1e-300}, {0: 1e-300, 1: 1e300})
    assert found is not None
    assert found.high is not None
    assert math.isfinite(found.high)


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


def test_only_seeds_of_both_are_paired() -> None:
    assert paired({0: 3.0, 1: 5.0, 2: 9.0}, {2: 1.0, 0: 1.0, 7: 4.0}) == {0: 2.0, 2: 8.0}
    assert difference({0: 1.0}, {1: 1.0}) is None


def test_a_ratio_needs_positive_numbers_of_shared_seeds() -> None:
    found = ratio({0: 2.0, 1: 8.0, 2: -1.0}, {0: 1.0, 1: 1.0})
    assert found is not None
    assert found.mean == pytest.approx(4.0)
    assert ratio({0: 2.0, 1: 0.0}, {0: 1.0, 1: 1.0}) is None
    assert ratio({0: 2.0}, {1: 1.0}) is None


def test_the_p_value_is_that_of_scipy() -> None:
    values = [1.0, 2.5, 3.0, 0.5]
    ours = stratified([[dict(enumerate(values))]]).p_value(0.2)
    assert ours == pytest.approx(ttest_1samp(values, 0.2).pvalue)


def test_a_difference_of_rounding_is_none() -> None:
    rounding = dict.fromkeys(range(3), 0.1 + 0.2 - 0.3)
    assert stratified([[rounding]]).p_value(0) == 1.0


class TestStrata:
    def test_tasks_weigh_the_same_whatever_their_cells(self) -> None:
        one = [{0: 1.0, 1: 1.0, 2: 1.0}]
        three = [{0: v, 1: v, 2: v} for v in (4.0, 5.0, 6.0)]
        assert stratified([one, three]).mean == 3.0

    def test_the_error_and_the_degrees_of_freedom_by_hand(self) -> None:
        """Variances of the means: 1 / 3 and 4 / 3; a quarter of their sum is that of the mean."""
        found = stratified([[{0: 0.0, 1: 1.0, 2: 2.0}], [{0: 0.0, 1: 2.0, 2: 4.0}]])
        assert found.mean == 1.5
        assert found.error == pytest.approx(math.sqrt((1 / 3 + 4 / 3) / 4))
        # Satterthwaite: (1 + 4)^2 / (1^2 / 2 + 4^2 / 2)
        assert found.degrees == pytest.approx(25 / 8.5)

    def test_sparsities_of_one_seed_are_not_independent(self) -> None:
        """Three copies of a cell are worth one cell."""
        cell = {0: 0.0, 1: 1.0, 2: 2.0}
        once, thrice = stratified([[cell]]), stratified([[cell] * 3])
        assert thrice.error == pytest.approx(once.error)
        assert thrice.degrees == once.degrees

    def test_cells_of_other_seeds_are_independent(self) -> None:
        found = stratified([[{0: 0.0, 1: 1.0, 2: 2.0}, {3: 0.0, 4: 1.0, 5: 2.0}]])
        assert found.error == pytest.approx(math.sqrt(1 / 3 / 2))

    def test_a_cell_of_one_seed_leaves_no_interval(self) -> None:
        found = stratified([[{0: 0.0, 1: 1.0, 2: 2.0}], [{0: 1.0}]])
        assert (found.mean, found.error, found.n) == (1.0, None, 1)
        assert found.p_value(0.0) == 1.0


class TestContrast:
    def test_it_is_paired_where_three_seeds_are_shared(self) -> None:
        first, second = {0: 1.0, 1: 11.0, 2: 21.0}, {0: 0.0, 1: 10.0, 2: 20.5}
        assert contrast([[first]], [[second]]) == stratified([[{0: 1.0, 1: 1.0, 2: 0.5}]])

    def test_it_is_welchs_test_where_they_are_not(self) -> None:
        first, second = [1.0, 2.0, 4.0], [3.0, 9.0, 5.0, 8.0]
        ours = contrast(
            [[dict(enumerate(first))]], [[{10 + place: v for place, v in enumerate(second)}]]
        )
        theirs = ttest_ind(first, second, equal_var=False)
        assert ours.p_value(0) == pytest.approx(theirs.pvalue)
        assert ours.degrees == pytest.approx(theirs.df)


def test_holm_by_hand() -> None:
    """The smallest of three is tripled, the next doubled, and none is below an earlier one."""
    assert holm([0.03, 0.01, 0.9, 0.02]) == pytest.approx([0.06, 0.04, 0.9, 0.06])
    assert holm([]) == []


@pytest.mark.parametrize(
    ("values", "seeds"),
    [
        # The mean is 1 and the deviation 1: t is 2.447 < sqrt(7) with 7 seeds, 2.571 > sqrt(6).
        ([0.0, 1.0, 2.0], 7),
        ([5.0, 5.1, 5.2], 3),
        ([-1.0, 0.0, 1.0], None),
        ([4.0], None),
    ],
)
def test_the_seeds_after_which_an_interval_excludes_0_if_it_goes_on_alike(
    values: list[float], seeds: int | None
) -> None:
    assert seeds_to_decide(dict(enumerate(values))) == seeds
