"""Methods that remove whole channels early in training."""

from __future__ import annotations

from harness.registry import pruner
from harness.run import Run
from pruners.channels.criteria import crop_on_gates, norm_scale
from pruners.channels.units import Channels
from pruners.normalisation import norm_scales
from pruners.training import l1
from pruners.triggers import lazy_regime, mask_distance


@pruner("earlycrop_s", title="EarlyCroP-S", group="structured", paper="arXiv:2206.10451")
def earlycrop_s(
    run: Run, *, mixed: bool = False, before_norm: bool = False, norm_power: int = 2
) -> None:
    """Prune once with CroP-S, as soon as training turns lazy; for the options see ``crop_s``.

    Deviations from the official code: those of ``earlycrop_u``; and the threshold is one minus
    the sparsity, where theirs is 0.1 less, which is never reached from 90 % on.
    """
    lazy = lazy_regime(threshold=1 - run.sparsity, norm_power=norm_power)
    run.train(until=lazy, at_most=run.budget // 2)
    run.prune(Channels, crop_on_gates(mixed, before_norm), run.sparsity)
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
