"""Sparsity distributions: one threshold for the whole network, or a number for each layer.

A method passes one as the ``scope`` of `harness.run.Run.prune`. The sparsity of the network is the
same under every distribution, to within one weight, so that methods are compared at equal sparsity.

Each function takes the shapes of the prunable tensors by name and the target sparsity, and
returns how many variables to keep in each tensor, or None for one threshold for all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from harness.units import Scope, isomorphic

__all__ = [
    "PerOutput",
    "erdos_renyi_kernel",
    "isomorphic",
    "number_to_keep",
    "per_layer",
    "whole_network",
]


def whole_network(shapes: Mapping[str, torch.Size], sparsity: float) -> None:
    """Rank the variables of all layers together, with one threshold; the default."""


def per_layer(shapes: Mapping[str, torch.Size], sparsity: float) -> dict[str, int]:
    """Give every layer the same sparsity, to within one weight."""
    sizes = {name: shape.numel() for name, shape in shapes.items()}
    return _apportion(number_to_keep(sum(sizes.values()), sparsity), sizes)


@dataclass(frozen=True)
class PerOutput:
    """Share what a layer keeps equally among its outputs, to within one weight of each.

    An output is a row of a linear layer's weight, or a filter of a convolution. Weights that are
    compared with others of their own output only need no common scale (Wanda, Sun et al. 2024,
    arXiv:2306.11695).

    Args:
        layers: how the target is distributed over layers.
    """

    layers: Scope = per_layer

    def __call__(
        self, shapes: Mapping[str, torch.Size], sparsity: float
    ) -> Mapping[str, int] | None:
        """Return how many weights to keep in each tensor."""
        return self.layers(shapes, sparsity)


def erdos_renyi_kernel(shapes: Mapping[str, torch.Size], sparsity: float) -> dict[str, int]:
    """Keep a share of each layer in proportion to ``sum(shape) / prod(shape)``.

    Large layers become sparser than small ones. The Erdos-Renyi random graph of Mocanu et al. 2018
    (doi:10.1038/s41467-018-04316-3), which Evci et al. 2020 (RigL, arXiv:1911.11134) extended to
    kernels. A layer whose share exceeds its size stays whole, and the other layers share the rest.
    """
    sizes = {name: shape.numel() for name, shape in shapes.items()}
    shares = {name: sum(shape) for name, shape in shapes.items()}
    total = number_to_keep(sum(sizes.values()), sparsity)
    whole: dict[str, int] = {}
    while True:
        rest = total - sum(whole.values())
        all_shares = sum(shares.values())
        # In whole numbers: rounding could make all layers too small at once.
        too_small = [name for name in shares if rest * shares[name] > sizes[name] * all_shares]
        if not too_small:
            return whole | _apportion(rest, shares)
        for name in too_small:
            whole[name] = sizes[name]
            del shares[name]


def uniform_plus(shapes: Mapping[str, torch.Size], sparsity: float) -> dict[str, int]:
    """Give every layer the same sparsity, except a first convolution and the last layer.

    The convolution stays whole; of the last layer, at least a fifth stays.

    Gale et al. 2019 (arXiv:1902.09574); Lee et al. 2021 (arXiv:2010.07611) call it Unif+. First and
    last are those in the order of the modules.

    Deviation: where fewer weights remain than these exceptions need, the original refuses; here the
    layers between lose all weights, then the last one, then the first.
    """
    sizes = {name: shape.numel() for name, shape in shapes.items()}
    names = list(shapes)
    first, last = names[0], names[-1]
    left = number_to_keep(sum(sizes.values()), sparsity)
    exceptions: dict[str, int] = {}
    if len(shapes[first]) > 2:
        exceptions[first] = min(sizes.pop(first), left)
        left -= exceptions[first]
    counts = _apportion(left, sizes)
    least = math.ceil(shapes[last].numel() / 5)
    if last in sizes and counts[last] < least:
        exceptions[last] = min(least, left)
        del sizes[last]
        counts = _apportion(left - exceptions[last], sizes)
    return exceptions | counts


def number_to_keep(total: int, sparsity: float) -> int:
    """Return how many of ``total`` variables stay: the nearest number, with halves rounded up."""
    return math.floor((1 - sparsity) * total + 0.5)


def _apportion(total: int, shares: Mapping[str, int]) -> dict[str, int]:
    """Split a total in proportion to shares, by the largest-remainder method."""
    all_shares = sum(shares.values())
    counts = {name: total * share // all_shares for name, share in shares.items()}
    left_over = total - sum(counts.values())
    by_remainder = sorted(shares, key=lambda name: total * shares[name] % all_shares, reverse=True)
    for name in by_remainder[:left_over]:
        counts[name] += 1
    return counts
