"""Find how often verdicts are right, in simulated matrices with a known truth, and publish it.

    python -m benchmarks.verdicts [--matrices N]

The rows are shapes: tasks x sparsities x seeds. The score of a run is the sum of the score of its
method, an effect of the seed that all methods share, and noise. The noise is

* normal: with equal deviations in all tasks;
* unequal: normal, with deviations that differ between tasks by a factor of up to thirty;
* heavy: Student's t with two degrees of freedom;
* collapses: normal, and one run in ten scores 0 instead of 0.8;
* coarse: normal, rounded to its standard deviation, like a metric of few test samples.

The columns show in how many of the matrices

* equal: "A beats B" (1) and "A beats each of seven" (7) are supported or contradicted, if all
  methods are equal;
* half, one: these claims are supported, if A is better by half a standard deviation, or by one;
* held: the 95 % interval of a score contains the true score;
* ranked: a ranking of eight equal methods calls any of them better or worse than the next;
* left out: the best of a table of eight equal methods, in one cell, do not include a given one.

An interval does not account for what did not happen in its seeds: if one run in ten collapses, then
in 73 % of all cases none of three seeds has collapsed, which no method of inference can detect.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from benchmarks.publish.runs import write_rows
from harness.results.intervals import BySeed, Estimate, contrast, stratified
from reports.ranking import leaders
from reports.ranking import verdicts as ranked
from reports.verdicts import Threshold, judgements, over_tasks, together

Array = NDArray[np.float64]
Shape = tuple[int, int, int]
"""Tasks, sparsities, seeds."""

SHAPES: Sequence[Shape] = ((1, 1, 3), (1, 1, 5), (2, 1, 3), (2, 3, 3), (8, 1, 3), (8, 3, 3))
SHAPES = (*SHAPES, (8, 1, 5), (8, 3, 5))

LEVEL, DEVIATION = 0.8, 0.05
"""Of scores, 0 being the baseline and 1 the dense network: the noise is 5 % of the way."""

OTHERS = 7

Noise = Callable[[np.random.Generator, tuple[int, ...]], Array]
"""From an array's shape (methods, tasks, sparsities, seeds) to noise of mean 0."""


def normal(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return noise with equal deviations in all tasks."""
    return random.normal(0, DEVIATION, shape)


def unequal(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return noise with different deviations in different tasks."""
    spread = np.exp(random.uniform(np.log(1 / 30), 0, (1, shape[1], 1, 1)))
    return random.normal(0, DEVIATION, shape) * spread


def heavy(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return noise without a variance."""
    return DEVIATION * random.standard_t(2, shape)


def collapses(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return noise in which one run in ten loses everything."""
    noise = random.normal(0, DEVIATION, shape)
    share = 0.1
    noise[random.random(shape) < share] = -LEVEL
    return noise + share * LEVEL


def coarse(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return noise in steps of its standard deviation."""
    return DEVIATION * np.round(random.normal(0, 1, shape))


NOISES: Mapping[str, Noise] = {
    noise.__name__: noise for noise in (normal, unequal, heavy, collapses, coarse)
}

Cells = list[list[BySeed]]


def simulated(
    random: np.random.Generator, shape: Shape, noise: Noise, methods: int, advantage: float = 0.0
) -> list[Cells]:
    """Return the scores of each method by task, sparsity and seed.

    Args:
        random: the source of chance.
        shape: of the matrix.
        noise: of the runs.
        methods: how many.
        advantage: of the first over the others, in standard deviations of normal noise.
    """
    scores = LEVEL + noise(random, (methods, *shape))
    scores += random.normal(0, DEVIATION, (1, shape[0], 1, shape[2]))
    scores[0] += advantage * DEVIATION
    return [
        [[dict(enumerate(map(float, cell))) for cell in task] for task in method]
        for method in scores
    ]


def claimed(methods: Sequence[Cells]) -> str:
    """Return the verdict on the claim that the first method beats each of the others."""
    first, *others = methods
    threshold = Threshold(value=0.0, above=True, smallest=0.01)
    return together(
        [judged.verdict for judged in judgements([(_over(first, o), threshold) for o in others])]
    )


def _over(first: Cells, second: Cells) -> Estimate | None:
    return over_tasks(
        (str(task), {seed: a[seed] - b[seed] for seed in a})
        for task, (ours, theirs) in enumerate(zip(first, second, strict=True))
        for a, b in zip(ours, theirs, strict=True)
    )


def rates(
    shape: Shape, noise: Noise, others: int, matrices: int, advantage: float = 0.0, seed: int = 0
) -> dict[str, float]:
    """Return how often a claim is supported, contradicted and undecided."""
    random = np.random.default_rng(seed)
    found = [
        claimed(simulated(random, shape, noise, others + 1, advantage)) for _ in range(matrices)
    ]
    return {
        verdict: found.count(verdict) / matrices
        for verdict in ("supported", "contradicted", "undecided")
    }


def coverage(shape: Shape, noise: Noise, matrices: int, seed: int = 0) -> float:
    """Return how often the interval of a score contains the true score."""
    random = np.random.default_rng(seed)
    held = 0
    for _ in range(matrices):
        (scores,) = simulated(random, shape, noise, 1)
        interval = stratified(scores).interval
        assert interval.low is not None
        assert interval.high is not None
        held += interval.low <= LEVEL <= interval.high
    return held / matrices


def misranked(shape: Shape, noise: Noise, matrices: int, seed: int = 0) -> float:
    """Return how often a ranking of equal methods distinguishes any of them from the next."""
    random = np.random.default_rng(seed)
    wrong = 0
    for _ in range(matrices):
        methods = simulated(random, shape, noise, OTHERS + 1)
        order = sorted(methods, key=lambda scores: -stratified(scores).mean)
        said = ranked([contrast(a, b) for a, b in pairwise(order)])
        wrong += bool({"better", "worse"} & set(said))
    return wrong / matrices


def left_out(shape: Shape, noise: Noise, matrices: int, seed: int = 0) -> float:
    """Return how often the best of a table of equal methods do not include the first."""
    random = np.random.default_rng(seed)
    wrong = 0
    for _ in range(matrices):
        methods = simulated(random, (1, 1, shape[2]), noise, OTHERS + 1)
        best = leaders([cells[0][0] for cells in methods])
        wrong += bool(best) and 0 not in best
    return wrong / matrices


def all_rates(shape: Shape, noise: Noise, matrices: int) -> dict[str, float]:
    """Return the rates of a shape, by column."""
    of = functools.partial(rates, shape, noise, matrices=matrices)
    found: dict[str, float] = {}
    for others in (1, OTHERS):
        equal = of(others=others)
        found[f"equal_{others}_supported"] = equal["supported"]
        found[f"equal_{others}_contradicted"] = equal["contradicted"]
        for name, advantage in (("half", 0.5), ("one", 1.0)):
            found[f"{name}_{others}"] = of(others=others, advantage=advantage)["supported"]
    for name, measure in (("held", coverage), ("ranked", misranked), ("left_out", left_out)):
        found[name] = measure(shape, noise, matrices)
    return found


def main() -> None:
    """Print the rates and write them to the published results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdicts")
    parser.add_argument("--matrices", type=int, default=2000, help="of each shape (2000)")
    matrices = parser.parse_args().matrices
    rows = []
    for name, noise in NOISES.items():
        for shape in SHAPES:
            found = all_rates(shape, noise, matrices)
            where = {"noise": name, "shape": " x ".join(map(str, shape)), "matrices": str(matrices)}
            rows.append(where | {column: f"{rate:.7g}" for column, rate in found.items()})
            print(*rows[-1].values(), sep="  ", flush=True)
    write_rows("verdicts", rows)


if __name__ == "__main__":
    main()
