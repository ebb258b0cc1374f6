"""How sure a mean over seeds is."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import t as student

CONFIDENCE = 0.95

FEWEST_SEEDS = 3
"""With fewer an interval may be shown, but decides nothing."""


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % confidence interval, which one value alone does not have."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def decides(self) -> bool:
        """Whether there are seeds enough for the interval to decide anything."""
        return self.n >= FEWEST_SEEDS


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the mean of independent values and the interval of Student's t.

    Args:
        values: at least one, all finite.
    """
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Interval(mean, None, None, len(values))
    half = _quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half, len(values))


def ratio_interval(ratios: Sequence[float]) -> Interval:
    """Return the geometric mean of positive ratios and its interval, symmetric in logarithms."""
    logarithms = mean_interval([math.log(ratio) for ratio in ratios])
    low, high = logarithms.low, logarithms.high
    return Interval(
        math.exp(logarithms.mean),
        None if low is None else math.exp(low),
        None if high is None else math.exp(high),
        logarithms.n,
    )


@functools.cache
def _quantile(degrees: int) -> float:
    return float(student.ppf((1 + CONFIDENCE) / 2, degrees))
