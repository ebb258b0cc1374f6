"""Statistics across tasks (Agarwal et al. 2021, arXiv:2108.13264): estimates without intervals.

Scores come as one array of seeds for each task, which may differ in length: a method has as many
values on a task as it has seeds there. The authors' package ``rliable``, which wants equally many
seeds on every task, gives intervals by a percentile bootstrap; of three seeds they hold the true
value much less often than they say, so that there are none here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import trim_mean

Array = NDArray[np.float64]
Scores = Sequence[Array]
"""The scores of a method: for each task an array (seeds,)."""


def interquartile_mean(scores: Scores) -> float:
    """Return the mean of the middle half of all tasks and seeds together."""
    return float(trim_mean(np.concatenate(list(scores)), proportiontocut=0.25))


def performance_profile(scores: Scores, thresholds: Array) -> Array:
    """Return the fraction of runs with a score above each threshold."""
    everything = np.concatenate(list(scores))
    above: Array = (everything[None, :] > thresholds[:, None]).mean(axis=1)
    return above


def probability_of_improvement(first: Scores, second: Scores) -> float:
    """Return how probable it is that the first method beats the second on a task chosen at random.

    On each task the fraction of pairs of runs that the first wins, ties counted half
    (Mann and Whitney's U), averaged over the tasks.
    """
    return float(np.mean([_wins(a, b) for a, b in zip(first, second, strict=True)]))


def _wins(first: Array, second: Array) -> float:
    """Return the fraction of pairs that the first wins."""
    difference = first[:, None] - second[None, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())
