"""Which methods are the best of a block, and which cannot be told from them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.results.intervals import (
    FEWEST_SEEDS,
    BySeed,
    contrast,
    holm,
    positive,
)
from reports.groups import Group
from reports.quantities import COSTS
from reports.verdicts import SIGNIFICANCE

SAME_ARITHMETIC = ("step_ms", "inference_ms", "peak_step_bytes")
"""Costs that networks have in common which compute the same; what differs is the measurement."""


def best_of(groups: Sequence[Group], key: str, *, smaller: bool) -> list[int]:
    """Return the best of the groups and those that cannot be told from it.

    Groups of fewer than three seeds are neither, nor are estimated or disturbed costs.

    Args:
        groups: of one section.
        key: a metric or a cost.
        smaller: whether the smallest is the best.
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
    """Return the best of the samples and those that cannot be told from it.

    A sample is left out where its difference to the best survives Holm's correction for how many
    are compared with it: the one that is truly the best is returned at least 95 times of 100
    (subset selection, Gupta 1965). None are where none can be told apart.

    Args:
        samples: three values by seed at least; paired where three seeds are shared, compared by
            Welch's test otherwise.
        kinds: of each sample, samples of equal kind being the same by nature; None for any other.
        smaller: whether the smallest is the best.
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
    """Return what a network computes with."""
    macs, parameters = group.intervals.get("macs"), group.intervals.get("parameters")
    return (macs.mean, parameters.mean) if macs and parameters else None
