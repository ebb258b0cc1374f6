"""Methods that remove whole channels early in training."""

from __future__ import annotations

import math

from harness.registry import pruner
from harness.run import Run
from pruners.channels.criteria import crop_on_gates, norm_scale
from pruners.channels.units import Channels
from pruners.normalisation import norm_scales
from pruners.schedules import halving_steps
from pruners.training import l1
from pruners.triggers import lazy_regime, mask_distance


@pruner(
    "earlycrop_s",
    title="EarlyCroP-S",
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
    """Prune with CroP-S, a little at a time, as soon as training turns lazy.

    ``threshold=0`` stands for the paper's: one minus the sparsity of nodes. ``run.sparsity`` is
    that of weights. Removing a share p of each layer's channels leaves (1 - p)^2 of the weights,
    so that the threshold is ``sqrt(1 - run.sparsity)``. For the other options see ``crop_s``.

    Deviations from the official code: those of ``earlycrop_u``; the threshold, where theirs is
    0.1 less, which is never reached from 90 % of the nodes on; and they prune in one shot
    (``steps=0``), which the paper's algorithm does not: scored again after each step, the channels
    of a layer that has become narrow gain importance, so that no layer becomes a bottleneck.
    """
    lazy = lazy_regime(threshold or math.sqrt(1 - run.sparsity), norm_power)
    run.train(until=lazy, at_most=run.budget // 2)
    run.prune(Channels, crop_on_gates(mixed, before_norm), halving_steps(run.sparsity, steps))
    run.train()


@pruner("earlybird", title="EarlyBird", group="structured", paper="arXiv:1909.11957")
def earlybird(run: Run, *, strength: float = 1e-4, threshold: float = 0.1) -> None:
    """Draw the ticket of the largest scales as soon as it has not changed for five epochs.

    Deviations: the cap of half the budget, which the original does not have; the mask is the one
    that would be cut for this sparsity of weights, with coupled channels as one, where the
    original takes a fraction of all scales. A network without normalisation has no ticket.
    """
    sparse = l1(norm_scales, strength)
    settled = mask_distance(Channels, norm_scale, run.sparsity, threshold)
    run.train(until=settled, at_most=run.budget // 2, penalty=sparse)
    run.prune(Channels, norm_scale, run.sparsity)
    run.train(penalty=sparse)
