"""Methods across tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from harness.results.intervals import (
    FEWEST_SEEDS,
    BySeed,
    Estimate,
    Interval,
    Strata,
    contrast,
    holm,
    stratified,
)
from reports.groups import Section, normalised
from reports.statistics import (
    Scores,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
)
from reports.verdicts import SIGNIFICANCE

THRESHOLDS = np.round(np.linspace(0, 1.2, 61), 3)


@dataclass(frozen=True)
class Ranked:
    """A method's place.

    Attributes:
        score: the mean of its scores, each task weighing the same.
        middle: the interquartile mean of them, all runs together.
        over_next: how much higher its score is than that of the method below it.
        beats_next: how probable it is that a run of it beats one of the method below it.
        verdict: better or worse than the method below, not told apart, or too few seeds.
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
    """Methods on the tasks that all of them were run on.

    Attributes:
        slug: a name for files.
        title: which methods and tasks these are.
        stamp: what is said where any of the data are not the published ones.
        cells: the tasks, each at one sparsity.
        ranked: the best first.
        left_out: the methods without a result on some of them.
        failed: which runs failed, and so have no score.
        too_few: whether there are too few seeds to tell anything.
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
"""A section's slug, and a sparsity."""

Homes = Mapping[str, Section]
"""Sections by slug."""

Table = dict[str, dict[Cell, BySeed]]


def rankings(sections: Sequence[Section]) -> list[Ranking]:
    """Return the ranking of the methods that ran everywhere, and of all where all of them ran."""
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
        title = f"All {len(table)} ranked methods, on the {len(complete)} of {len(cells)} tasks "
        title += "and sparsities where all of them were run"
        slug = f"ranking{'-2' * len(made)}"
        made.append(_ranking(slug, title, list(table), complete, table, titles, homes))
    return made


def outside(sections: Sequence[Section]) -> list[str]:
    """Return which tasks and methods no ranking can hold, each with the reason."""
    table, _ = _scores(sections)
    lines: list[str] = []
    titles: dict[str, set[str]] = {}
    for section in sections:
        for group in section.groups:
            if group.kind != "dense" and group.method not in table:
                asked = titles.setdefault(group.title, set())
                asked.add("its runs have no score" if group.sparsity else "no sparsity was asked")
        if not any(slug == section.slug for scores in table.values() for slug, _ in scores):
            lines.append(f"{section.name} is in no ranking: {_why_unscaled(section)}.")
    for title, reasons in sorted(titles.items()):
        lines.append(f"{title} is in no ranking: {' and '.join(sorted(reasons))}.")
    return lines


def _why_unscaled(section: Section) -> str:
    dense = section.dense.intervals.get("test") if section.dense else None
    if dense is None:
        return "there is no dense result to scale by"
    if section.baseline is None:
        return "what ignoring the input gives is not known"
    if not section.better(dense.mean, section.baseline):
        return "the dense network is no better than ignoring the input"
    return "no method was asked for a sparsity there, or none has a result"


def _scores(sections: Sequence[Section]) -> tuple[Table, Mapping[str, str]]:
    """Return each method's normalised scores, and its title."""
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
        stamp="HOLDS STAND-IN OR SYNTHETIC DATA" if stamped else None,
        cells=[f"{homes[home].name} at {100 * sparsity:g} %" for home, sparsity in cells],
        ranked=ranked,
        left_out=sorted(titles[method] for method in table if method not in methods),
        failed=_failed(cells, homes),
        too_few=min(interval.n for interval in means.values()) < FEWEST_SEEDS,
    )


def _strata(scores: Mapping[Cell, BySeed], cells: Sequence[Cell], homes: Homes) -> Strata:
    """Return scores by task, whose sections and sparsities are its cells."""
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
    """Return what each difference says, corrected by Holm for how many there are."""
    known = [d.p_value(0) if d.n >= FEWEST_SEEDS else 1.0 for d in differences]
    return [_verdict(d, p) for d, p in zip(differences, holm(known), strict=True)]


def _verdict(difference: Estimate, p: float) -> str:
    if difference.n < FEWEST_SEEDS:
        return "too few seeds to tell"
    if p >= SIGNIFICANCE:
        return "not told apart"
    return "better" if difference.mean > 0 else "worse"
