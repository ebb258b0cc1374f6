"""Which methods are best: in one section, and across tasks.

Across tasks, scores are compared as proposed by Agarwal et al. 2021 (arXiv:2108.13264), but
without their intervals: the authors' package ``rliable`` uses a percentile bootstrap and needs the
same number of seeds on every task; with three seeds its intervals contain the true value much less
often than they claim.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.stats import trim_mean

from harness.results.intervals import (
    FEWEST_SEEDS,
    BySeed,
    Estimate,
    Interval,
    Strata,
    contrast,
    holm,
    positive,
    stratified,
)
from reports.groups import INCLUDES_STAMPED, Group, Section, normalised
from reports.quantities import COSTS
from reports.verdicts import SIGNIFICANCE

THRESHOLDS = np.round(np.linspace(0, 1.2, 61), 3)

SAME_ARITHMETIC = ("step_ms", "inference_ms", "peak_step_bytes")
"""Costs that are equal for networks with the same arithmetic, up to errors of measurement."""


def best_of(groups: Sequence[Group], key: str, *, smaller: bool) -> list[int]:
    """Return the best of the groups and those that are not distinguishable from it.

    Groups of fewer than three seeds are left out, and so are estimated or disturbed costs.

    Args:
        groups: of one section.
        key: a metric or a cost.
        smaller: whether the smallest is the best.

    Returns:
        The places of these groups; none if no group is distinguishable from another.
    """
    able = [index for index, group in enumerate(groups) if _can_be_best(group, key)]
    samples = [groups[index].values[key] for index in able]
    kinds: list[object] = [None] * len(able)
    if key in SAME_ARITHMETIC:
        kinds = [_arithmetic(groups[index]) for index in able]
    if key in COSTS and positive(*samples):
        samples = [{seed: math.log(value) for seed, value in each.items()} for each in samples]
    return [able[place] for place in leaders(samples, kinds, smaller=smaller)]


def leaders(
    samples: Sequence[BySeed], kinds: Sequence[object] = (), *, smaller: bool = False
) -> list[int]:
    """Return the best of the samples and those that are not distinguishable from it.

    A sample is left out if its difference to the best survives Holm's correction for the number of
    comparisons. The truly best one is returned in at least 95 of 100 cases (subset selection,
    Gupta 1965).

    Args:
        samples: at least three values each, by seed. Two samples are paired if they share three
            seeds, and compared by Welch's test otherwise.
        kinds: a kind for each sample; samples of one kind are equal by nature. None is no kind.
        smaller: whether the smallest is the best.

    Returns:
        The places of these samples; none if no sample is distinguishable from another.
    """
    if len(samples) < 2:
        return []
    means = [math.fsum(each.values()) / len(each) for each in samples]
    best = (min if smaller else max)(range(len(samples)), key=lambda place: means[place])
    others = [place for place in range(len(samples)) if place != best]
    p_values = []
    for place in others:
        same = bool(kinds) and kinds[place] is not None and kinds[place] == kinds[best]
        compared = contrast([[samples[best]]], [[samples[place]]])
        p_values.append(1.0 if same else compared.p_value(0))
    corrected = holm(p_values)
    alike = [place for place, p in zip(others, corrected, strict=True) if p >= SIGNIFICANCE]
    return [best, *alike] if len(alike) < len(others) else []


def _can_be_best(group: Group, key: str) -> bool:
    whole = key in COSTS or not group.remark
    known = key in group.values and len(group.values[key]) >= FEWEST_SEEDS
    return whole and known and key not in group.estimated | group.disturbed


def _arithmetic(group: Group) -> tuple[float, float] | None:
    """Return the numbers of operations and parameters of a group's networks."""
    macs, parameters = group.intervals.get("macs"), group.intervals.get("parameters")
    return (macs.mean, parameters.mean) if macs and parameters else None


Array = NDArray[np.float64]
Scores = Sequence[Array]
"""The scores of a method: an array (seeds,) for each task. Numbers of seeds may differ."""


def interquartile_mean(scores: Scores) -> float:
    """Return the mean of the middle half of the scores of all tasks and seeds together."""
    return float(trim_mean(np.concatenate(list(scores)), proportiontocut=0.25))


def performance_profile(scores: Scores, thresholds: Array) -> Array:
    """Return the fraction of runs with a score above each threshold."""
    everything = np.concatenate(list(scores))
    above: Array = (everything[None, :] > thresholds[:, None]).mean(axis=1)
    return above


def probability_of_improvement(first: Scores, second: Scores) -> float:
    """Return the probability that the first method beats the second on a random task.

    This is the fraction of pairs of runs that the first method wins, where a tie counts half (Mann
    and Whitney's U), averaged over the tasks.
    """
    return float(np.mean([_wins(a, b) for a, b in zip(first, second, strict=True)]))


def _wins(first: Array, second: Array) -> float:
    """Return the fraction of pairs that the first wins."""
    difference = first[:, None] - second[None, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


@dataclass(frozen=True)
class Ranked:
    """A method in a ranking.

    Attributes:
        score: the mean of its scores; all tasks have the same weight.
        middle: the interquartile mean of its scores, all runs together.
        over_next: how much higher its score is than that of the next method.
        beats_next: the probability that one of its runs beats one of the next method.
        verdict: better or worse than the next method, not distinguishable, or too few seeds.
        profile: the share of its runs above each threshold.
    """

    method: str
    title: str
    score: Interval
    middle: float
    over_next: Interval | None
    beats_next: float | None
    verdict: str
    profile: Sequence[float]


@dataclass(frozen=True)
class Ranking:
    """Methods ranked on tasks that all of them were run on.

    Attributes:
        slug: a name for files.
        title: which methods and tasks these are.
        stamp: a warning if any of the data are not the published ones.
        cells: the tasks, each with a sparsity, in words.
        ranked: the methods, best first.
        left_out: the titles of methods without a result in some cell.
        failed: which runs failed and therefore have no score.
        too_few: whether there are too few seeds for any verdict.
    """

    slug: str
    title: str
    stamp: str | None
    cells: Sequence[str]
    ranked: Sequence[Ranked]
    left_out: Sequence[str]
    failed: Sequence[str]
    too_few: bool


Cell = tuple[str, float]
"""The slug of a section, and a sparsity."""

Homes = Mapping[str, Section]
"""Sections by slug."""

Table = dict[str, dict[Cell, BySeed]]


def rankings(sections: Sequence[Section]) -> list[Ranking]:
    """Return up to two rankings: methods that ran in all cells, and all methods in shared cells."""
    table, titles = _scores(sections)
    cells = sorted({cell for scores in table.values() for cell in scores})
    if not cells:
        return []
    homes = {section.slug: section for section in sections}
    everywhere = [method for method, scores in table.items() if len(scores) == len(cells)]
    complete = [cell for cell in cells if all(cell in scores for scores in table.values())]
    made = []
    if len(everywhere) > 1:
        title = f"The {len(everywhere)} methods that were run on every task and sparsity"
        if len(complete) == len(cells) and not outside(sections):
            title = "Every method on every task"
        made.append(_ranking("ranking", title, everywhere, cells, table, titles, homes))
    if complete and len(complete) < len(cells) and len(table) > 1:
        title = f"All {len(table)} ranked methods on the {len(complete)} of {len(cells)} pairs of "
        title += "task and sparsity on which all of them were run"
        slug = f"ranking{'-2' * len(made)}"
        made.append(_ranking(slug, title, list(table), complete, table, titles, homes))
    return made


def outside(sections: Sequence[Section]) -> list[str]:
    """Return the tasks and methods that are in no ranking, each with the reason."""
    table, _ = _scores(sections)
    lines: list[str] = []
    titles: dict[str, set[str]] = {}
    for section in sections:
        for group in section.groups:
            if group.kind != "dense" and group.method not in table:
                asked = titles.setdefault(group.title, set())
                asked.add(
                    "its runs have no score" if group.sparsity else "it was given no sparsity"
                )
        if not any(slug == section.slug for scores in table.values() for slug, _ in scores):
            lines.append(f"{section.name} is in no ranking: {_why_unscaled(section)}.")
    for title, reasons in sorted(titles.items()):
        lines.append(f"{title} is in no ranking: {' and '.join(sorted(reasons))}.")
    return lines


def _why_unscaled(section: Section) -> str:
    dense = section.dense.intervals.get("test") if section.dense else None
    if dense is None:
        return "there is no dense result to normalise scores by"
    if section.baseline is None:
        return "the metric of a predictor that ignores its input is not known"
    if not section.better(dense.mean, section.baseline):
        return "the dense network is no better than a predictor that ignores its input"
    return "no method was run at a sparsity above 0, or none has a result"


def _scores(sections: Sequence[Section]) -> tuple[Table, Mapping[str, str]]:
    """Return the normalised scores of each method, and its title."""
    table: Table = {}
    titles: dict[str, str] = {}
    for section in sections:
        for group in section.groups:
            scores = normalised(section, group)
            if group.sparsity and scores:
                cell = section.slug, group.sparsity
                table.setdefault(group.method, {})[cell] = scores
                titles[group.method] = group.title
    return table, titles


def _ranking(
    slug: str,
    title: str,
    methods: Sequence[str],
    cells: Sequence[Cell],
    table: Table,
    titles: Mapping[str, str],
    homes: Homes,
) -> Ranking:
    strata = {m: _strata(table[m], cells, homes) for m in methods}
    arrays: dict[str, Scores] = {
        m: [np.array(list(table[m][c].values())) for c in cells] for m in methods
    }
    means = {m: stratified(strata[m]).interval for m in methods}
    order = sorted(methods, key=lambda method: (-means[method].mean, method))
    below = dict(pairwise(order))
    over = {m: contrast(strata[m], strata[other]) for m, other in below.items()}
    said = dict(zip(over, verdicts(list(over.values())), strict=True))
    ranked = [
        Ranked(
            method,
            titles[method],
            means[method],
            interquartile_mean(arrays[method]),
            over[method].interval if method in below else None,
            (
                probability_of_improvement(arrays[method], arrays[below[method]])
                if method in below
                else None
            ),
            said.get(method, ""),
            [round(float(v), 4) for v in performance_profile(arrays[method], THRESHOLDS)],
        )
        for method in order
    ]
    stamped = any(homes[home].stamp for home, _ in cells)
    return Ranking(
        slug=slug,
        title=title,
        stamp=INCLUDES_STAMPED if stamped else None,
        cells=[f"{homes[home].name} at {100 * sparsity:g} %" for home, sparsity in cells],
        ranked=ranked,
        left_out=sorted(titles[method] for method in table if method not in methods),
        failed=_failed(cells, homes),
        too_few=min(interval.n for interval in means.values()) < FEWEST_SEEDS,
    )


def _strata(scores: Mapping[Cell, BySeed], cells: Sequence[Cell], homes: Homes) -> Strata:
    """Return the scores of each task in its cells, which are its sections and sparsities."""
    together: dict[str, list[BySeed]] = {}
    for cell in cells:
        together.setdefault(homes[cell[0]].task, []).append(scores[cell])
    return list(together.values())


def _failed(cells: Sequence[Cell], homes: Homes) -> list[str]:
    return [
        f"{group.title}, {group.statuses['failed']} of {group.runs} on {homes[home].name} "
        f"at {100 * sparsity:g} %"
        for home, sparsity in cells
        for group in homes[home].groups
        if group.sparsity == sparsity and group.statuses.get("failed")
    ]


def verdicts(differences: Sequence[Estimate]) -> list[str]:
    """Return a verdict on each difference, corrected for their number by Holm's method."""
    known = [d.p_value(0) if d.n >= FEWEST_SEEDS else 1.0 for d in differences]
    return [_verdict(d, p) for d, p in zip(differences, holm(known), strict=True)]


def _verdict(difference: Estimate, p: float) -> str:
    if difference.n < FEWEST_SEEDS:
        return "too few seeds"
    if p >= SIGNIFICANCE:
        return "not distinguishable"
    return "better" if difference.mean > 0 else "worse"
