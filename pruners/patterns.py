"""N:M patterns: which layers they fit, and which weights they leave."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from harness.errors import Skip
from harness.prunable import prunable_weights
from harness.units import Kept, Pattern
from harness.weight_matrices import WeightMatrix, weight_matrices


def misfits(model: nn.Module, pattern: Pattern) -> dict[str, str]:
    """Return why a pattern does not fit, by the names of the weights that it leaves whole.

    Raises:
        Skip: it fits no layer.
    """
    weights, matrices = prunable_weights(model), weight_matrices(model)
    reasons = {
        name: why
        for name, weight in weights.items()
        if (why := _misfit(weight, matrices[name], pattern)) is not None
    }
    if len(reasons) == len(weights):
        because = " or ".join(dict.fromkeys(reasons.values()))
        raise Skip(f"the pattern {pattern} fits no layer: all have {because}")
    return reasons


def _misfit(weight: Tensor, matrix: WeightMatrix, pattern: Pattern) -> str | None:
    if matrix.is_lookup:
        return "inputs that are looked up"
    if matrix.unfolded(weight).shape[2] < pattern.m:
        return f"fewer than {pattern.m} inputs"
    return None


def left_by(model: nn.Module, pattern: Pattern) -> int:
    """Return how many prunable weights a pattern leaves.

    Raises:
        Skip: it fits no layer.
    """
    whole, matrices = misfits(model, pattern), weight_matrices(model)
    total = 0
    for name, weight in prunable_weights(model).items():
        inputs = matrices[name].unfolded(weight).shape[2]
        total += weight.numel() // inputs * (inputs if name in whole else pattern.of(inputs))
    return total


def best(model: nn.Module, pattern: Pattern, scores: Mapping[str, Tensor]) -> Kept:
    """Return masks of the weights with the highest scores in each block, for those that it fits.

    Args:
        model: the network.
        pattern: how many stay in a block of how many.
        scores: a tensor of the shape of each prunable weight.

    Raises:
        Skip: the pattern fits no layer.
    """
    whole, matrices = misfits(model, pattern), weight_matrices(model)
    kept: Kept = {}
    for name, weight in prunable_weights(model).items():
        if name in whole:
            continue
        inputs_last = matrices[name].unfolded(scores[name]).transpose(2, 3)
        mask = pattern.best(inputs_last).transpose(2, 3)
        kept[name] = matrices[name].folded(mask, tuple(weight.shape))
    return kept
