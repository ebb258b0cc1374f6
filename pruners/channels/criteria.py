"""How to prune channels: criteria that look at what a channel is made of, and at its gate.

The others, `pruners.criteria`, score gates as they score weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.errors import RequestError
from harness.prunable import prunable_weights
from harness.scoring import Criterion, Scores, Scoring, scoring_mode
from pruners.channels.composition import filters, norm_scales, norms, of_channels
from pruners.channels.gating import Gates
from pruners.channels.units import Channels
from pruners.criteria import crop, curvature_product


def filter_norm(scoring: Scoring) -> Scores:
    """``sum |W_j|``: the L1 norm of the filters (Li et al. 2017, arXiv:1608.08710).

    Of layers whose outputs are added up, the norms are added. Groups that no layer computes are
    not scored.
    """
    units = _channels(scoring)
    return {
        name: torch.stack([weights.detach().abs().sum(1) for weights in own]).sum(0)
        for name, own in filters(units.model, units.graph).items()
    }


def filter_magnitude(scoring: Scoring) -> Scores:
    """``mean |W_j|``: what the weights of a channel are worth to `magnitude`, in the mean.

    Over a whole filter the differences between weights average out: within a layer all channels
    have almost the same score, and between layers it is the initial scale, one over the root of
    the fan-in. With one threshold for all, the layers with the largest fan-in go first and whole.
    """
    units = _channels(scoring)
    return {
        name: torch.cat(own, dim=1).detach().abs().mean(1)
        for name, own in filters(units.model, units.graph).items()
    }


def relative_filter_magnitude(scoring: Scoring) -> Scores:
    """``mean |W_j|`` over its mean in the group, so that layers of all scales can be compared.

    That scores need it is an observation of Molchanov et al. 2017, arXiv:1611.06440.
    """
    return {name: score / score.mean() for name, score in filter_magnitude(scoring).items()}


def norm_scale(scoring: Scoring) -> Scores:
    """``|gamma|``: the scale of the normalisation behind the channel (Liu et al. 2017).

    Network slimming, arXiv:1708.06519, and the score of early-bird tickets. Where coupled
    channels have several scales, their mean; where a group has none, it is not scored.
    """
    units = _channels(scoring)
    norm_scales(units.model)  # refuses a network without any
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
    """``|d/dc <g_W, g_W(c)>|``: what the gate does to the gradient flow of the weights.

    The form of the official EarlyCroP code, in place of the gates' own gradient flow, which the
    paper writes down: ``g_W`` is the gradient of all prunable weights, a constant in the first
    place and a function of the gates in the second.
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
    """A criterion for gates that stand before normalisation, as in the official EarlyCroP code.

    Batch statistics would undo such a gate, so that running ones are used, whatever the run's
    condition says.

    Args:
        criterion: scores the gates.
    """

    criterion: Criterion

    def __call__(self, scoring: Scoring) -> Scores:
        """Score, with gates in another place."""
        units = _channels(scoring)
        with (
            scoring_mode(units.model, batch_statistics=False),
            Gates(units.model, units.graph, before_norm=True) as gates,
        ):
            return self.criterion(replace(scoring, variables=gates.values))


def crop_on_gates(mixed: bool = False, before_norm: bool = False) -> Criterion:
    """Return CroP-S as in the paper, or in either respect as in the official code."""
    criterion = crop_mixed if mixed else crop
    return BeforeNormalisation(criterion) if before_norm else criterion


def _channels(scoring: Scoring) -> Channels:
    if not isinstance(scoring.units, Channels):
        raise RequestError("this criterion scores channels: prune(Channels, ...)")
    return scoring.units


def _all(tensors: dict[str, torch.nn.Parameter]) -> dict[str, Tensor]:
    return {name: torch.ones_like(tensor, dtype=torch.bool) for name, tensor in tensors.items()}
