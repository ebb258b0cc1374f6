"""Which methods are the best of a block, and which cannot be told from them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.results.intervals import (
    FEWEST_SEEDS,
    BySeed,
    Estimate,
    contrast,
    holm,
    positive,
)
from reports.groups import Group
from reports.quantities import COSTS
from reports.verdicts import SIGNIFICANCE

SAME_ARITHMETIC = ("step_ms", "inference_ms", "peak_step_bytes")
"""Costs that networks have in common which do the same; what differs is the measurement."""


def best_of(groups: Sequence[Group], key: str, *, smaller: bool) -> list[int]:
    """Return the best of the groups and those that cannot be told from it.

    The one that is truly the best is among them in at least 95 % of blocks (subset selection,
    Gupta 1965). None are returned where there are too few seeds, or where none can be told apart.

    Args:
        groups: of one section.
        key: a metric or a cost.
        smaller: whether the smallest is the best.
    """
    able = [index for index, group in enumerate(groups) if _can_be_best(group, key)]
    if len(able) < 2:
        return []
    means = {index: groups[index].intervals[key].mean for index in able}
    best = (min if smaller else max)(able, key=lambda index: means[index])
    others = [index for index in able if index != best]
    p_values = holm([_sameness(groups[best], groups[other], key) for other in others])
    alike = [i for i, p in zip(others, p_values, strict=True) if p >= SIGNIFICANCE]
    return [best, *alike] if len(alike) < len(others) else []


def _can_be_best(group: Group, key: str) -> bool:
    whole = key in COSTS or not group.remark
    return whole and key in group.intervals and key not in group.estimated


def _sameness(best: Group, other: Group, key: str) -> float:
    """Return the p-value of two groups' being the same."""
    if key in SAME_ARITHMETIC and None is not _arithmetic(best) == _arithmetic(other):
        return 1.0
    compared = _compared(best.values[key], other.values[key], as_ratio=key in COSTS)
    return compared.p_value(0) if compared.n >= FEWEST_SEEDS else 1.0


def _arithmetic(group: Group) -> tuple[float, float] | None:
    """Return what a network computes with."""
    macs, parameters = group.intervals.get("macs"), group.intervals.get("parameters")
    return (macs.mean, parameters.mean) if macs and parameters else None


def _compared(first: BySeed, second: BySeed, *, as_ratio: bool) -> Estimate:
    if as_ratio and positive(first, second):
        first, second = (
            {seed: math.log(value) for seed, value in each.items()} for each in (first, second)
        )
    return contrast([[first]], [[second]])
