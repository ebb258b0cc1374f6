"""Verdicts on comparisons of methods, and on claims that need several of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.results.intervals import BySeed, Estimate, holm, stratified

SIGNIFICANCE = 0.05
"""Of two-sided p-values: half of it on either side of the threshold."""


@dataclass(frozen=True)
class Threshold:
    """What an effect has to be above or below.

    Attributes:
        value: on the scale on which effects are averaged.
        above: whether the claimed side is above.
        smallest: how far beyond it on the other side an effect has to be to contradict.
    """

    value: float
    above: bool
    smallest: float

    def is_right(self, effect: float) -> bool:
        """Return whether an effect is on the claimed side."""
        return effect > self.value if self.above else effect < self.value

    def is_far(self, effect: float) -> bool:
        """Return whether an effect is on the other side, and not too small to matter."""
        beyond = self.value - effect if self.above else effect - self.value
        return beyond > self.smallest


def over_tasks(cells: Iterable[tuple[str, BySeed]]) -> Estimate | None:
    """Return the mean over tasks of the mean over the cells of each; None without a cell.

    The inference is about these tasks and not about a population of tasks: the error is what
    other seeds would change.
    """
    strata: dict[str, list[BySeed]] = defaultdict(list)
    for task, by_seed in cells:
        strata[task].append(by_seed)
    return stratified(strata.values()) if strata else None


@dataclass(frozen=True)
class Judgement:
    """What a comparison says.

    Attributes:
        verdict: supported, contradicted or undecided.
        p: two-sided, that the true effect is just the threshold; None with too few seeds.
        corrected: of the opposite of what is claimed, by Holm over the claim.
    """

    verdict: str
    p: float | None = None
    corrected: float | None = None


def judgements(
    comparisons: Sequence[tuple[Estimate | None, Threshold]],
) -> list[Judgement]:
    """Return what each comparison of a claim says.

    A comparison is supported if its one-sided test passes: a claim needs all of them (an
    intersection-union test, Berger 1982), which takes no correction. It is contradicted if the
    opposite survives Holm's correction over all comparisons of the claim, since one is enough, and
    if the effect is not too small to matter.

    Args:
        comparisons: the effect, None where there are too few seeds, and what it is held against.
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
    """Return the verdict of a claim from those of its comparisons.

    Args:
        found: verdicts.
        complete: whether every comparison that the claim names could be made.
    """
    if "contradicted" in found:
        return "contradicted"
    return "supported" if complete and set(found) == {"supported"} else "undecided"
