"""Verdicts on comparisons of methods, and on claims that consist of several comparisons."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.results.intervals import BySeed, Estimate, holm, stratified

SIGNIFICANCE = 0.05
"""The level of two-sided tests: half of it on either side of the threshold."""


@dataclass(frozen=True)
class Threshold:
    """A value that an effect is claimed to be above or below.

    Attributes:
        value: on the scale on which effects are averaged.
        above: whether the effect is claimed to be above.
        smallest: margin beyond the value at which an effect contradicts the claim.
    """

    value: float
    above: bool
    smallest: float

    def is_right(self, effect: float) -> bool:
        """Return whether an effect is on the claimed side."""
        return effect > self.value if self.above else effect < self.value

    def is_far(self, effect: float) -> bool:
        """Return whether an effect is on the other side, and far enough to matter."""
        beyond = self.value - effect if self.above else effect - self.value
        return beyond > self.smallest


def over_tasks(cells: Iterable[tuple[str, BySeed]]) -> Estimate | None:
    """Return the mean over tasks of the mean over the cells of each task; None without cells.

    The inference is about these tasks, not about a population of tasks: the error is the
    variation over seeds.

    Args:
        cells: pairs of a task and its values by seed.
    """
    strata: dict[str, list[BySeed]] = defaultdict(list)
    for task, by_seed in cells:
        strata[task].append(by_seed)
    return stratified(strata.values()) if strata else None


@dataclass(frozen=True)
class Judgement:
    """The result of a comparison.

    Attributes:
        verdict: supported, contradicted or undecided.
        p: two-sided p-value of the hypothesis that the true effect is the threshold; None with
            too few seeds.
        corrected: p-value of the opposite of the claim, corrected by Holm over the claim.
    """

    verdict: str
    p: float | None = None
    corrected: float | None = None


def judgements(
    comparisons: Sequence[tuple[Estimate | None, Threshold]],
) -> list[Judgement]:
    """Return the result of each comparison of a claim.

    A comparison is supported if its one-sided test passes. A claim needs all of its comparisons
    (an intersection-union test, Berger 1982), so no correction is necessary. A comparison is
    contradicted if the opposite survives Holm's correction over all comparisons of the claim, since
    one is enough, and if the effect is large enough to matter.

    Args:
        comparisons: pairs of an effect, None with too few seeds, and the threshold for it.
    """
    known = [
        (place, estimate, threshold)
        for place, (estimate, threshold) in enumerate(comparisons)
        if estimate is not None
    ]
    opposite = holm(
        [
            1.0 if threshold.is_right(estimate.mean) else estimate.p_value(threshold.value)
            for _, estimate, threshold in known
        ]
    )
    found = [Judgement("undecided")] * len(comparisons)
    for (place, estimate, threshold), corrected in zip(known, opposite, strict=True):
        found[place] = _judged(estimate, threshold, corrected)
    return found


def _judged(estimate: Estimate, threshold: Threshold, corrected: float) -> Judgement:
    p = estimate.p_value(threshold.value)
    verdict = "undecided"
    if threshold.is_right(estimate.mean):
        verdict = "supported" if p < SIGNIFICANCE else "undecided"
    elif corrected < SIGNIFICANCE and threshold.is_far(estimate.mean):
        verdict = "contradicted"
    return Judgement(verdict, p, corrected)


def together(found: Sequence[str], *, complete: bool = True) -> str:
    """Return the verdict on a claim from those on its comparisons.

    Args:
        found: verdicts.
        complete: whether all comparisons that the claim names could be made.
    """
    if "contradicted" in found:
        return "contradicted"
    return "supported" if complete and set(found) == {"supported"} else "undecided"
