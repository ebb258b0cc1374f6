"""Methods that remove whole channels of a trained network.

They train for half of the budget before they prune, where the originals train to the end.
"""

from __future__ import annotations

import math

from harness.errors import RequestError
from harness.registry import pruner
from harness.run import Run
from pruners.channels.criteria import filter_magnitude, filter_norm, relative_filter_magnitude
from pruners.channels.units import Channels
from pruners.distributions import per_layer
from pruners.normalisation import norm_scales
from pruners.schedules import geometric_steps
from pruners.training import l1, norms_and_head, taylor


@pruner("magnitude_s", title="Magnitude-S", group="structured")
def magnitude_s(run: Run, *, relative: bool = False) -> None:
    """Remove the channels of all layers whose weights are the smallest in the mean.

    Global magnitude, carried over to channels as it is, compares the scales of layers and not
    their channels: at high sparsity it leaves single channels of the layers with the largest
    fan-in, and collapses. This is the method's nature, and why later work compares channels with
    those of their own layer, which ``relative`` does.
    """
    run.train(epochs=run.budget // 2)
    criterion = relative_filter_magnitude if relative else filter_magnitude
    run.prune(Channels, criterion, run.sparsity)
    run.train()


@pruner(
    "efficient_convnets", title="EfficientConvNets", group="structured", paper="arXiv:1608.08710"
)
def efficient_convnets(run: Run) -> None:
    """Remove the same ratio of each layer's filters, those with the smallest L1 norms.

    Deviation: the original spares layers that it found sensitive, by hand for each network.
    """
    run.train(epochs=run.budget // 2)
    run.prune(Channels, filter_norm, run.sparsity, scope=per_layer)
    run.train()


@pruner("gate_decorators", title="GateDecorators", group="structured", paper="arXiv:1909.08174")
def gate_decorators(
    run: Run, *, ticks: int = 20, ratio: float = 0.0, strength: float = 1e-3
) -> None:
    """Tick: train gates and head, remove what matters least. Tock: train all with small gates.

    The Ticks take 15 % of the budget together, and remove equal ratios of what remains. After
    every five of them comes a Tock that is as long as they were. A network without normalisation
    has no gates.

    Deviations: the original begins with a Tock, Ticks for an epoch each, Tocks after ten, with
    learning rates of their own, and keeps a tenth of each layer, where ours have the floor of
    every method; it removes 0.5 % of the filters in each Tick, as many times as it takes:
    ``ratio=0.005`` does so with the weights. A budget of few steps has fewer Ticks.
    """
    steps = run.budget * run.steps_per_epoch
    if ratio:
        ticks = _ticks_for(run.sparsity, ratio)
    most = max(1, int(0.15 * steps))
    if ratio and ticks > most:
        raise RequestError(f"ratio={ratio:g} takes {ticks} Ticks; this budget has steps for {most}")
    ticks = min(ticks, most)
    tick = most // ticks
    run.train(epochs=run.budget // 2)
    for number, target in enumerate(geometric_steps(run.sparsity, ticks), start=1):
        watched = run.train(steps=tick, only=norms_and_head, watch=taylor())
        assert watched.scores is not None
        run.prune(Channels, watched.scores, target)
        if number % 5 == 0:
            run.train(steps=5 * tick, penalty=l1(norm_scales, strength))
    run.train()


def _ticks_for(sparsity: float, ratio: float) -> int:
    """Return how often a ratio of what remains has to be removed."""
    if ratio >= 1:
        raise RequestError(f"ratio={ratio:g}: is not below 1, as in ratio=0.005")
    return max(1, math.ceil(math.log(1 - sparsity) / math.log(1 - ratio)))
