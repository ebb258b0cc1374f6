"""What a criterion returned, checked before units are ranked by it, or why it returned nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from harness.budget import written
from harness.errors import Skip, nearest
from harness.scoring import Scores
from harness.units import Kept, Limit, ScoreError, UnreachableSparsity

_COMPLAINTS: Sequence[tuple[str, str]] = (
    (
        r"use_reentrant=True",
        "needs gradients, which torch cannot give through checkpoints with use_reentrant=True; "
        "let the network call torch.utils.checkpoint.checkpoint(..., use_reentrant=False)",
    ),
    (
        r"derivative for '?(?:aten::)?(\w+)'? is not implemented",
        "needs second derivatives, and torch has none for {}",
    ),
    (
        r"differentiate twice (\w+): once_differentiable",
        "needs second derivatives, and the network's function {} is marked once_differentiable",
    ),
    (
        r"(.*(?:[Dd]ouble backward|differentiate twice).*)",
        "needs second derivatives, and torch says: {}",
    ),
    (
        r"One of the differentiated Tensors does not require grad",
        "differentiates frozen weights, which have no gradient; scoring.learning() gives the "
        "variables that have one",
    ),
)
"""Patterns of torch's errors for networks that it cannot differentiate, and what to tell users."""


def why_not_differentiable(error: BaseException) -> str | None:
    """Return why a criterion cannot differentiate this network; None if the error is another."""
    for pattern, meaning in _COMPLAINTS:
        if match := re.search(pattern, str(error)):
            return meaning.format(*match.groups())
    return None


def checked_scores(scores: object, alive: Kept) -> Scores:
    """Return a criterion's scores, detached, and on the device of their variables.

    Raises:
        ScoreError: they are not scores of variables.
    """
    if not isinstance(scores, Mapping):
        raise ScoreError(
            f"the criterion returned {_kind(scores)}, not a dictionary with a tensor of scores for "
            "each variable"
        )
    checked: Scores = {}
    for name, score in scores.items():
        if name not in alive:
            raise ScoreError(
                f"the criterion scored {name!r}, which is not a variable{nearest(str(name), alive)}"
            )
        if not isinstance(score, Tensor) or score.is_complex():
            what = "complex numbers" if isinstance(score, Tensor) else _kind(score)
            raise ScoreError(f"the criterion returned {what} for {name!r}, not a tensor of scores")
        checked[name] = score.detach().to(alive[name].device)
    return checked


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def above_all(scores: Scores, names: set[str]) -> Scores:
    """Return scores in which some variables have the highest score of all."""
    if not names:
        return scores
    double = any(score.dtype == torch.float64 for score in scores.values())
    dtype = torch.float64 if double else torch.float32
    largest = torch.finfo(dtype).max
    return {
        name: torch.full_like(score, largest, dtype=dtype) if name in names else score
        for name, score in scores.items()
    }


def require_whole(
    kept: Kept, alive: Kept, frozen: set[str], target: float, limit: Limit | None
) -> None:
    """Refuse a target that only the removal of frozen, unranked weights could reach.

    Raises:
        Skip: it is a limit.
        UnreachableSparsity: it is a sparsity.
    """
    names = sorted(frozen)
    if all(torch.equal(kept[name], alive[name]) for name in names):
        return
    total = sum(mask.numel() for mask in alive.values())
    stay = sum(int(alive[name].count_nonzero()) for name in names)
    because = (
        f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} frozen, so the criterion, which "
        "ranks by gradients, leaves them whole"
    )
    if limit is not None:
        asked = written(limit.kind, limit.at_most, 4)
        raise Skip(f"{limit.kind}={asked} cannot be reached: {because}")
    raise UnreachableSparsity(target, 1 - stay / total, because)
