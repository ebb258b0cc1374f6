"""Confidence intervals of means over seeds, and of differences between methods paired by seed."""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import sub

import numpy as np
from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95

FEWEST_SEEDS = 3
"""With fewer seeds, an interval may be shown but decides nothing."""

MOST_SEEDS = 1000
"""With more seeds, nobody would tell two methods apart."""

ROUNDING = 1e-12
"""Smaller distances are due to rounding, however small their error is."""

BySeed = Mapping[int, float]
"""The values of a method in one cell (a task at a sparsity), by seed."""


@dataclass(frozen=True)
class Interval:
    """A mean of n values with its 95 % confidence interval; one value alone has no interval."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def decides(self) -> bool:
        """Whether there are enough seeds for the interval to decide anything."""
        return self.n >= FEWEST_SEEDS


@dataclass(frozen=True)
class Estimate:
    """A mean with an error that follows Student's t.

    Attributes:
        mean: the estimate.
        error: its standard error; None for a single value.
        degrees: degrees of freedom.
        n: the size of the smallest sample that it is computed from.
    """

    mean: float
    error: float | None
    degrees: float
    n: int

    @property
    def interval(self) -> Interval:
        """The mean with its 95 % confidence interval."""
        if self.error is None:
            return Interval(self.mean, None, None, self.n)
        half = float(stdtrit(self.degrees, (1 + CONFIDENCE) / 2)) * self.error
        return Interval(self.mean, self.mean - half, self.mean + half, self.n)

    @property
    def ratio(self) -> Interval:
        """The interval of the ratio of which this is the mean logarithm."""
        logarithms = self.interval
        low, high = logarithms.low, logarithms.high
        return Interval(
            _exp(self.mean),
            None if low is None else _exp(low),
            None if high is None else _exp(high),
            self.n,
        )

    def p_value(self, value: float) -> float:
        """Return the two-sided p-value of the hypothesis that the true mean is this value."""
        distance = abs(self.mean - value)
        if self.error is None or distance < ROUNDING:
            return 1.0
        return 2 * float(stdtr(self.degrees, -distance / self.error)) if self.error else 0.0


def _exp(logarithm: float) -> float:
    """Return the exponential, or the largest float if it overflows."""
    return math.exp(min(logarithm, math.log(sys.float_info.max)))


def stratified(strata: Iterable[Sequence[BySeed]]) -> Estimate:
    """Return the mean over strata of the mean over their cells; all strata have the same weight.

    The strata are the tasks, which are treated as fixed: the error is the variation over seeds on
    these tasks, not over other tasks. The cells of a stratum are its sparsities. Runs of one seed
    are correlated, so the deviations of a seed are summed over the cells of a stratum before they
    are squared. Strata may have different variances; the degrees of freedom are those of
    Satterthwaite (1946), where a stratum has those of its smallest cell.

    Args:
        strata: at least one, each with at least one cell of at least one finite value.
    """
    means, deviations, sizes = [], [], []
    for cells in strata:
        of_seeds: dict[int, list[float]] = defaultdict(list)
        cell_means = [_mean(list(cell.values())) for cell in cells]
        for cell, mean in zip(cells, cell_means, strict=True):
            weight = 1 / (len(cells) * math.sqrt(len(cell) * max(1, len(cell) - 1)))
            for seed, value in cell.items():
                of_seeds[seed].append(weight * (value - mean))
        means.append(_mean(cell_means))
        deviations.append([math.fsum(each) for each in of_seeds.values()])
        sizes.append(min(map(len, cells)))
    if min(sizes) < 2:
        return Estimate(_mean(means), None, 0, min(sizes))
    # Without scaling, squares of huge numbers overflow and those of tiny numbers vanish.
    scale = max(abs(each) for of_stratum in deviations for each in of_stratum) or 1.0
    variances = [math.fsum((each / scale) ** 2 for each in of_stratum) for of_stratum in deviations]
    error = scale * math.sqrt(math.fsum(variances)) / len(means)
    freedom = satterthwaite(variances, [size - 1 for size in sizes])
    return Estimate(_mean(means), error, freedom, min(sizes))


def _mean(values: Sequence[float]) -> float:
    try:
        return math.fsum(values) / len(values)
    except OverflowError:
        return math.fsum(value / len(values) for value in values)


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the mean of independent values with the interval of Student's t.

    Args:
        values: at least one, all finite.
    """
    return stratified([[dict(enumerate(values))]]).interval


def ratio_interval(ratios: Sequence[float]) -> Interval:
    """Return the geometric mean of positive ratios with its interval, symmetric in logarithms."""
    return stratified([[dict(enumerate(map(math.log, ratios)))]]).ratio


def paired(
    first: BySeed, second: BySeed, by: Callable[[float, float], float] = sub
) -> dict[int, float]:
    """Return a function of two values of each seed, for the seeds that have both."""
    return {seed: by(first[seed], second[seed]) for seed in sorted(first.keys() & second.keys())}


def log_ratio(first: float, second: float) -> float:
    """Return the logarithm of the ratio of two positive numbers."""
    return math.log(first) - math.log(second)


def positive(*values: BySeed) -> bool:
    """Return whether all values are positive."""
    return all(value > 0 for each in values for value in each.values())


def difference(first: BySeed, second: BySeed) -> Interval | None:
    """Return the mean difference first - second, paired by seed; None without common seeds."""
    pairs = paired(first, second)
    return stratified([[pairs]]).interval if pairs else None


def seeds_to_decide(values: BySeed) -> int | None:
    """Return with about how many seeds the interval of a mean would exclude 0.

    It is assumed that mean and standard deviation stay as they are.

    Args:
        values: one for each seed, such as differences between two methods; at least one.

    Returns:
        The number of all seeds, those of ``values`` included. None if it is beyond `MOST_SEEDS`, or
        if there is a single value.
    """
    estimate = stratified([[values]])
    if estimate.error is None:
        return None
    deviation = estimate.error * math.sqrt(len(values))
    numbers = np.arange(FEWEST_SEEDS, MOST_SEEDS + 1)
    halves = stdtrit(numbers - 1, (1 + CONFIDENCE) / 2) * deviation / np.sqrt(numbers)
    enough = numbers[halves < abs(estimate.mean)]
    return int(enough[0]) if enough.size else None


def ratio(first: BySeed, second: BySeed) -> Interval | None:
    """Return the geometric mean of the ratio first / second, paired by seed.

    None without common seeds, or if a value of a common seed is not positive.
    """
    shared = first.keys() & second.keys()
    if not shared or not positive(*({s: each[s] for s in shared} for each in (first, second))):
        return None
    return stratified([[paired(first, second, log_ratio)]]).ratio


Strata = Sequence[Sequence[BySeed]]
"""The values of a method: the cells of each task."""


def contrast(first: Strata, second: Strata) -> Estimate:
    """Return the mean difference first - second.

    It is paired by seed if every cell has enough common seeds, and computed as by Welch otherwise.

    Args:
        first: values in the same strata and cells as the second, at least one in each cell.
        second: the values to subtract.
    """
    pairs = [
        [paired(a, b) for a, b in zip(cells, others, strict=True)]
        for cells, others in zip(first, second, strict=True)
    ]
    if min(len(pair) for cells in pairs for pair in cells) >= FEWEST_SEEDS:
        return stratified(pairs)
    ours, theirs = stratified(first), stratified(second)
    mean, n = ours.mean - theirs.mean, min(ours.n, theirs.n)
    if ours.error is None or theirs.error is None:
        return Estimate(mean, None, 0, n)
    scale = max(ours.error, theirs.error) or 1.0
    variances = [(ours.error / scale) ** 2, (theirs.error / scale) ** 2]
    freedom = satterthwaite(variances, [ours.degrees, theirs.degrees])
    return Estimate(mean, scale * math.sqrt(math.fsum(variances)), freedom, n)


def satterthwaite(variances: Sequence[float], degrees: Sequence[float]) -> float:
    """Return the degrees of freedom of a sum of independently estimated variances."""
    squares = math.fsum(v * v / d for v, d in zip(variances, degrees, strict=True))
    return math.fsum(variances) ** 2 / squares if squares else math.fsum(degrees)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979), in the same order."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected = [1.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected
