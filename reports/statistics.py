"""Statistics across tasks (Agarwal et al. 2021, arXiv:2108.13264).

Scores come as one array of seeds for each task, which may differ in length: a method has as many
values on a task as it has seeds there. Every draw of the bootstrap resamples the seeds within
each task (strata), as in the authors' package ``rliable``, which wants equally many seeds on every
task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import trim_mean

from harness.results.intervals import CONFIDENCE, Interval

Array = NDArray[np.float64]
Scores = Sequence[Array]
"""The scores of a method: for each task an array (seeds,)."""

DRAWS = 2000
SEED = 0


def interquartile_mean(scores: Array) -> Array:
    """Return the mean of the middle half of the last axis; of all tasks and seeds together."""
    mean: Array = trim_mean(scores, proportiontocut=0.25, axis=-1)
    return mean


def stratified_bootstrap(
    statistic: Callable[[Array], Array], scores: Scores, draws: int = DRAWS
) -> Interval:
    """Return a statistic of all scores with its percentile interval.

    Args:
        statistic: from an array (..., runs) to an array (...).
        scores: resampled within each task.
        draws: of the bootstrap, from a fixed seed: the same scores give the same interval.

    Returns:
        The number of values in it is that of the task with the fewest seeds.
    """
    drawn = statistic(np.concatenate(_resampled(scores, draws, SEED), axis=1))
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    everything = np.concatenate(list(scores))
    return Interval(float(statistic(everything)), float(low), float(high), _fewest(scores))


def _resampled(scores: Scores, draws: int, seed: int) -> list[Array]:
    """Return for each task an array (draws, seeds), drawn with replacement."""
    generator = np.random.default_rng(seed)
    return [task[generator.integers(len(task), size=(draws, len(task)))] for task in scores]


def _fewest(*scores: Scores) -> int:
    return min(len(task) for method in scores for task in method)


def performance_profile(scores: Scores, thresholds: Array) -> Array:
    """Return the fraction of runs with a score above each threshold."""
    everything = np.concatenate(list(scores))
    above: Array = (everything[None, :] > thresholds[:, None]).mean(axis=1)
    return above


def probability_of_improvement(first: Scores, second: Scores, draws: int = DRAWS) -> Interval:
    """Return how probable it is that the first method beats the second on a task chosen at random.

    On each task the fraction of pairs of runs that the first wins, ties counted half
    (Mann and Whitney's U), averaged over the tasks.
    """
    drawn = [
        _wins(a, b)
        for a, b in zip(
            _resampled(first, draws, SEED), _resampled(second, draws, SEED + 1), strict=True
        )
    ]
    low, high = np.quantile(np.mean(drawn, axis=0), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    point = np.mean([_wins(a, b) for a, b in zip(first, second, strict=True)])
    return Interval(float(point), float(low), float(high), _fewest(first, second))


def _wins(first: Array, second: Array) -> Array:
    """Return the fraction of pairs that the first wins, over the last axes."""
    difference = first[..., :, None] - second[..., None, :]
    won: Array = ((difference > 0) + 0.5 * (difference == 0)).mean(axis=(-2, -1))
    return won
