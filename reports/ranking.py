"""Methods across tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.results.intervals import FEWEST_SEEDS, Interval
from reports.groups import Section, normalised
from reports.statistics import (
    Array,
    Scores,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
    stratified_bootstrap,
)

THRESHOLDS = np.round(np.linspace(0, 1.2, 61), 3)


@dataclass(frozen=True)
class Ranked:
    """A method's place."""

    method: str
    title: str
    score: Interval
    over_next: Interval | None
    """How probable it is that it beats the method below it."""
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
        left_out: the methods that were not run on all of them.
        too_few: whether there are too few seeds to tell anything.
    """

    slug: str
    title: str
    stamp: str | None
    cells: Sequence[str]
    ranked: Sequence[Ranked]
    left_out: Sequence[str]
    too_few: bool


Cell = tuple[str, float]
Table = dict[str, dict[Cell, Array]]


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
                table.setdefault(group.method, {})[cell] = np.array(list(scores.values()))
                titles[group.method] = group.title
    return table, titles


def _ranking(
    slug: str,
    title: str,
    methods: Sequence[str],
    cells: Sequence[Cell],
    table: Table,
    titles: Mapping[str, str],
    homes: Mapping[str, Section],
) -> Ranking:
    scores: dict[str, Scores] = {m: [table[m][cell] for cell in cells] for m in methods}
    means = {m: stratified_bootstrap(interquartile_mean, scores[m]) for m in methods}
    order = sorted(methods, key=lambda method: (-means[method].mean, method))
    too_few = min(interval.n for interval in means.values()) < FEWEST_SEEDS
    ranked = []
    for place, method in enumerate(order):
        below = order[place + 1] if place + 1 < len(order) else None
        over = probability_of_improvement(scores[method], scores[below]) if below else None
        profile = performance_profile(scores[method], THRESHOLDS)
        ranked.append(
            Ranked(
                method,
                titles[method],
                means[method],
                over,
                _verdict(over, too_few),
                [round(float(value), 4) for value in profile],
            )
        )
    stamped = any(homes[home].stamp for home, _ in cells)
    return Ranking(
        slug=slug,
        title=title,
        stamp="HOLDS STAND-IN OR SYNTHETIC DATA" if stamped else None,
        cells=[f"{homes[home].name} at {100 * sparsity:g} %" for home, sparsity in cells],
        ranked=ranked,
        left_out=sorted(titles[method] for method in table if method not in methods),
        too_few=too_few,
    )


def _verdict(over: Interval | None, too_few: bool) -> str:
    if over is None:
        return ""
    if too_few:
        return "too few seeds to tell"
    if over.low is not None and over.low > 0.5:
        return "better"
    return "not told apart"
