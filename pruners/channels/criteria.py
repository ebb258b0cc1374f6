"""How to prune channels: criteria that need the filters, scales or gates of channels.

The criteria of `pruners.criteria` score gates as they score weights. All return a vector for each
group of coupled channels; groups that a criterion cannot score stay whole.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.errors import RequestError
from harness.prunable import prunable_weights
from harness.scoring import Criterion, Scores, Scoring, scoring_mode
from pruners.channels.composition import (
    coupled_norms,
    filters,
    norm_scales,
    norms,
    of_channels,
)
from pruners.channels.gating import Gates
from pruners.channels.units import Channels
from pruners.criteria import crop, curvature_product, lamp_shares


def filter_norm(scoring: Scoring) -> Scores:
    """Score by ``sum |W_j|``, the L1 norm of filters (Li et al. 2017, arXiv:1608.08710).

    The norms of coupled filters are added. Groups that no layer computes are not scored.
    """
    units = _channels(scoring)
    return {
        name: torch.stack([weights.detach().abs().sum(1) for weights in own]).sum(0)
        for name, own in filters(units.model, units.graph).items()
    }


def filter_magnitude(scoring: Scoring) -> Scores:
    """Score by ``mean |W_j|``, the mean magnitude of a channel's weights.

    Over a whole filter the differences between weights average out. Channels of one layer have
    almost the same score, and scores of different layers differ by their initial scale, one over
    the root of the fan-in. One threshold for all layers therefore first removes almost all channels
    of the layers with the largest fan-in.
    """
    units = _channels(scoring)
    return {
        name: torch.cat(own, dim=1).detach().abs().mean(1)
        for name, own in filters(units.model, units.graph).items()
    }


def relative_filter_magnitude(scoring: Scoring) -> Scores:
    """Score by ``mean |W_j|`` over its mean in the group, which makes layers comparable.

    Molchanov et al. 2017, arXiv:1611.06440, observed that scores need such a normalisation.
    """
    return {name: score / score.mean() for name, score in filter_magnitude(scoring).items()}


def filter_lamp(scoring: Scoring) -> Scores:
    """Score by LAMP, a filter's share in all filters of its layer that are not smaller than it.

    ``|W_j|^2 / sum |W_k|^2``, over all ``k`` with ``|W_k| >= |W_j|`` (Lee et al. 2021,
    arXiv:2010.07611). The squared norms of coupled filters are added. The largest filter of a layer
    has the score 1, so that no layer vanishes before all layers have a single filter.
    """
    units = _channels(scoring)
    return {
        name: lamp_shares(torch.stack([weights.detach().square().sum(1) for weights in own]).sum(0))
        for name, own in filters(units.model, units.graph).items()
    }


def filter_distance(scoring: Scoring) -> Scores:
    """Score by ``sum |W_j - W_k|_2`` over all filters ``k`` of the layer.

    A filter near to the others, that is near to their geometric median, can be replaced by them
    (FPGM, He et al. 2019, arXiv:1811.00250). The distances of coupled filters are added.
    """
    units = _channels(scoring)

    def distances(filters: Tensor) -> Tensor:
        # By products of matrices, which torch prefers, small distances would be inexact.
        exact = "donot_use_mm_for_euclid_dist"
        return torch.cdist(filters.detach(), filters.detach(), compute_mode=exact).sum(1)

    return {
        name: torch.stack([distances(weights) for weights in own]).sum(0)
        for name, own in filters(units.model, units.graph).items()
    }


def group_norm(scoring: Scoring) -> Scores:
    """Score by the mean squared norm of all coupled slices of weights, over its mean in the group.

    ``mean |W[j]|_2^2`` over the weights that compute channel ``j``, those that read it, and the
    scales between (DepGraph, Fang et al. 2023, arXiv:2301.12900).
    """
    units = _channels(scoring)
    norms = coupled_norms(units.model, units.graph)
    means = {name: own.detach().mean(0) for name, own in norms.items()}
    return {name: mean / mean.mean() for name, mean in means.items()}


def norm_scale(scoring: Scoring) -> Scores:
    """Score by ``|gamma|``, the scale of the normalisation behind the channel.

    Network slimming (Liu et al. 2017, arXiv:1708.06519), and the score of early-bird tickets.
    The score of coupled channels is the mean of their scales. Groups without normalisation are not
    scored.
    """
    units = _channels(scoring)
    norm_scales(units.model)  # raises if there are none
    return {
        name: torch.cat(
            [of_channels(layer.get_parameter("weight").detach(), member) for layer, member in own],
            dim=1,
        )
        .abs()
        .mean(1)
        for name, own in norms(units.model, units.graph).items()
    }


def crop_mixed(scoring: Scoring) -> Scores:
    """Score by ``|d/dc <g_W, g_W(c)>|``, the effect of a gate on the weights' gradient flow.

    The official EarlyCroP code does this; the paper takes the gradient flow of the gates. ``g_W``
    is the gradient of all prunable weights: a constant as the first factor, a function of the gates
    as the second.
    """
    weights = prunable_weights(_channels(scoring).model)
    flow = replace(scoring, variables=weights, alive=_all(weights)).gradient()
    total = {name: torch.zeros_like(gate) for name, gate in scoring.variables.items()}
    for loss in scoring.losses:
        for name, product in curvature_product(loss, weights, scoring.variables, flow).items():
            total[name].add_(product)
    return {name: product.abs() for name, product in total.items()}


@dataclass(frozen=True)
class BeforeNormalisation:
    """Scores gates before normalisation, as in the official EarlyCroP code.

    Batch statistics would undo such a gate. Running statistics are used instead, whatever the
    conditions of the run are.

    Args:
        criterion: scores the gates.
    """

    criterion: Criterion

    def __call__(self, scoring: Scoring) -> Scores:
        """Return the scores."""
        units = _channels(scoring)
        with (
            scoring_mode(units.model, batch_statistics=False),
            Gates(units.model, units.graph, before_norm=True) as gates,
        ):
            return self.criterion(replace(scoring, variables=gates.values))


def crop_on_gates(mixed: bool = False, before_norm: bool = False) -> Criterion:
    """Return CroP-S as in the paper, or as in the official code in one or both respects.

    Args:
        mixed: use `crop_mixed`.
        before_norm: use `BeforeNormalisation`.
    """
    criterion = crop_mixed if mixed else crop
    return BeforeNormalisation(criterion) if before_norm else criterion


def _channels(scoring: Scoring) -> Channels:
    if not isinstance(scoring.units, Channels):
        raise RequestError("this criterion scores channels: prune(Channels, ...)")
    return scoring.units


def _all(tensors: dict[str, torch.nn.Parameter]) -> dict[str, Tensor]:
    return {name: torch.ones_like(tensor, dtype=torch.bool) for name, tensor in tensors.items()}
