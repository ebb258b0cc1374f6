"""The receipt of a pruning: what was asked for, what was removed, and what was left whole."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from harness.pruning.network_costs import NetworkCosts
from harness.record import Channels, Receipt
from harness.units import BudgetedUnits, ClassifiedUnits, Units

BOTTLENECK = 0.02
"""A group of channels is a bottleneck if a smaller share of it remains, or a single channel."""

FROZEN = "frozen, and the criterion ranks by gradients"


@dataclass(frozen=True)
class Account:
    """What a network consists of at one moment."""

    weights: int
    """Prunable weights that remain."""
    macs: int | None
    """Multiply-accumulates with them; None if the units cannot say."""

    @staticmethod
    def of(units: Units, weights: int, costs: NetworkCosts) -> Account:
        """Take the account of a run's network."""
        if not isinstance(units, BudgetedUnits):
            return Account(weights, None)
        return Account(weights, costs.macs(units.prospect(units.alive())))


def receipt(
    units: Units,
    before: Account,
    after: Account,
    *,
    asked: float,
    reached: float,
    scored: Collection[str],
    frozen: Collection[str],
    misfits: Mapping[str, str],
    floor: float,
    rounding: int,
) -> Receipt:
    """Return the receipt of a pruning that has been carried out.

    Args:
        units: what was pruned.
        before: the network before it.
        after: the network after it.
        asked: the target: a sparsity, or the budget as a fraction of the dense network's cost.
        reached: the same as it is now.
        scored: the tensors that the criterion scored.
        frozen: the tensors that it could not rank.
        misfits: why the pattern does not fit, by the tensors that it leaves whole.
        floor: the minimum density.
        rounding: the number of which all numbers of channels are multiples.
    """
    content: Receipt = {
        "asked": asked,
        "reached": reached,
        "weights": [before.weights, after.weights],
        "macs": None,
    }
    if not isinstance(units, BudgetedUnits):
        return content
    assert before.macs is not None
    assert after.macs is not None
    reasons = units.why_whole(scored, floor, rounding)
    reasons |= {name: FROZEN for name in frozen if name in reasons}
    reasons |= {name: why for name, why in misfits.items() if name in reasons}
    narrow = {
        name: [left, dense]
        for name, (left, dense) in units.sizes().items()
        if units.nodes() is not None and left < dense and (left == 1 or left < BOTTLENECK * dense)
    }
    content |= {
        "macs": [before.macs, after.macs],
        "whole": _by_reason(reasons),
        "pinned": _by_reason(units.pinned()),
        "bottlenecks": narrow,
    }
    if isinstance(units, ClassifiedUnits):
        content["kinds"] = _by_kind(groups_of(units))
    return content


def groups_of(units: ClassifiedUnits) -> list[Channels]:
    """Return the groups of coupled channels with their kinds and sizes."""
    kinds = units.kinds()
    return [
        {"name": name, "kind": kinds[name], "channels": dense, "kept": left}
        for name, (left, dense) in units.sizes().items()
    ]


def _by_kind(groups: Sequence[Channels]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for group in groups:
        sums = found.setdefault(group["kind"], [0, 0])
        sums[0] += group["kept"]
        sums[1] += group["channels"]
    return found


def _by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    return {
        reason: [name for name, why in reasons.items() if why == reason]
        for reason in dict.fromkeys(reasons.values())
    }
