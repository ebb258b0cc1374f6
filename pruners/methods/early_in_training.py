"""Methods that prune as soon as a trigger says that training has settled."""

from __future__ import annotations

import math

from harness.errors import RequestError
from harness.registry import pruner
from harness.run import Run
from pruners import criteria
from pruners.channels.criteria import (
    crop_on_gates,
    norm_scale,
)
from pruners.channels.units import Channels
from pruners.schedules import halving_steps
from pruners.training import L1, norm_scales
from pruners.triggers import LazyRegime, MaskDistance
from pruners.weights import Weights


@pruner(
    "earlycrop_u",
    title="EarlyCroP-U",
    when="early",
    needs=["second derivatives"],
    paper="arXiv:2206.10451",
    limits={"steps": "[0, inf)"},
)
def earlycrop_u(run: Run, *, steps: int = 5, threshold: float = 0.0, norm_power: int = 2) -> None:
    """Prune with CroP, a little at a time, as soon as training enters the lazy regime.

    When: ``|Delta_t - Delta_(t-1)| / |Delta_1| < 1 - rho``, with ``Delta_t`` the squared distance
    of the weights from their start, relative to their squared norm there. Score: that of
    ``cropit_u``; training continues from the current weights. EarlyCroP, Rachwan et al. 2022,
    arXiv:2206.10451.

    Deviations from the official code, which takes the weights after the first epoch for their
    start and does not square distances: the start is the initialisation and distances are squared,
    as in the paper; the latest moment is half the budget, where the code allows 100 epochs; and
    the epochs before pruning count towards the budget, where the code adds them to it.

    Args:
        run: the run.
        steps: how often the distance to the target is halved; 0 prunes in one shot.
        threshold: trigger threshold; 0 means the paper's, ``1 - sparsity``.
        norm_power: 2 for squared distances, 1 for distances.
    """
    lazy = LazyRegime(threshold or 1 - run.sparsity, norm_power)
    run.train(until=lazy, at_most=run.budget // 2)
    run.prune(Weights, criteria.crop, halving_steps(run.sparsity, steps))
    run.train()


@pruner(
    "earlycrop_s",
    title="EarlyCroP-S",
    when="early",
    needs=["second derivatives"],
    group="structured",
    paper="arXiv:2206.10451",
    version=2,
    limits={"steps": "[0, inf)"},
)
def earlycrop_s(
    run: Run,
    *,
    steps: int = 5,
    threshold: float = 0.0,
    norm_power: int = 2,
    mixed: bool = False,
    before_norm: bool = False,
) -> None:
    """Prune with CroP-S, a little at a time, as soon as training enters the lazy regime.

    When: as in ``earlycrop_u``, with the threshold ``1 - p`` for a sparsity ``p`` of channels.
    Removing the share ``p`` of every layer's channels leaves ``(1 - p)^2`` of the weights, and
    ``rho`` counts weights: the threshold is ``sqrt(1 - rho)``. Score: that of ``cropit_s``.
    EarlyCroP, Rachwan et al. 2022, arXiv:2206.10451.

    Deviations from the official code: those of ``earlycrop_u``. The code lowers the threshold by
    0.1, so that the trigger never fires from ``p = 0.9`` on. And it prunes in one shot, unlike the
    paper's algorithm: scored again after each step, the channels of a layer that has become narrow
    gain importance, and no layer becomes a bottleneck.

    Args:
        run: the run.
        steps: how often the distance to the target is halved; 0 prunes in one shot.
        threshold: trigger threshold; 0 means ``sqrt(1 - sparsity)``.
        norm_power: 2 for squared distances, 1 for distances.
        mixed: score by the effect of a gate on the gradient flow of the weights (``crop_s``).
        before_norm: put the gates before normalisation (``crop_s``).
    """
    lazy = LazyRegime(threshold or math.sqrt(1 - run.sparsity), norm_power)
    run.train(until=lazy, at_most=run.budget // 2)
    run.prune(Channels, crop_on_gates(mixed, before_norm), halving_steps(run.sparsity, steps))
    run.train()


@pruner(
    "earlycrop_u_fixed",
    title="EarlyCroP-U, moment fixed",
    when="early",
    needs=["second derivatives"],
    group="control",
    version=2,
    limits={"moment": "[0, 1)", "steps": "[0, inf)"},
)
def earlycrop_u_fixed(run: Run, *, moment: float = 0.5, steps: int = 5) -> None:
    """Prune like EarlyCroP-U after a fixed fraction of the budget, without its trigger.

    Args:
        run: the run.
        moment: the fraction of the budget before the pruning.
        steps: how often the distance to the target is halved; 0 prunes in one shot.
    """
    run.train(epochs=_epochs(run, moment))
    run.prune(Weights, criteria.crop, halving_steps(run.sparsity, steps))
    run.train()


@pruner(
    "earlycrop_s_fixed",
    title="EarlyCroP-S, moment fixed",
    when="early",
    needs=["second derivatives"],
    group="control",
    limits={"moment": "[0, 1)", "steps": "[0, inf)"},
)
def earlycrop_s_fixed(run: Run, *, moment: float = 0.5, steps: int = 5) -> None:
    """Prune like EarlyCroP-S after a fixed fraction of the budget, without its trigger.

    Args:
        run: the run.
        moment: the fraction of the budget before the pruning.
        steps: how often the distance to the target is halved; 0 prunes in one shot.
    """
    run.train(epochs=_epochs(run, moment))
    run.prune(Channels, crop_on_gates(), halving_steps(run.sparsity, steps))
    run.train()


def _epochs(run: Run, moment: float) -> int:
    """Return the number of epochs nearest to a share of the budget.

    Raises:
        RequestError: no epoch of the budget would be left to train after pruning.
    """
    epochs = round(moment * run.budget)
    if epochs >= run.budget:
        raise RequestError(
            f"moment={moment:g}: leaves no epoch after the pruning; "
            "it is a share of the budget, as in moment=0.5"
        )
    return epochs


@pruner(
    "earlybird",
    title="EarlyBird",
    when="early",
    needs=["normalisation"],
    group="structured",
    paper="arXiv:1909.11957",
)
def earlybird(run: Run, *, strength: float = 1e-4, threshold: float = 0.1) -> None:
    """Draw the ticket of the largest scales as soon as it has not changed for five epochs.

    When: the newest mask differs from each of the four before it in less than ``threshold`` of all
    entries. Score: ``|gamma|``, the scale of normalisation, under an L1 penalty throughout.
    EarlyBird, You et al. 2020, arXiv:1909.11957. A network without normalisation has no ticket.

    Deviations: the latest moment is half the budget, where the original has no limit; the mask is
    the one that reaches this sparsity of weights with coupled channels as one, where the original
    takes a fraction of all scales.

    Args:
        run: the run.
        strength: factor of the L1 penalty on the scales.
        threshold: the largest distance between masks that counts as settled.
    """
    penalty = L1(norm_scales, strength)
    settled = MaskDistance(Channels, norm_scale, run.sparsity, threshold)
    run.train(until=settled, at_most=run.budget // 2, penalty=penalty)
    run.prune(Channels, norm_scale, run.sparsity)
    run.train(penalty=penalty)
