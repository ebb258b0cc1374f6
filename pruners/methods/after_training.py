"""Methods that prune a trained network, and train it further.

They prune after half of the budget, where the originals train to the end and then fine-tune.
"""

from __future__ import annotations

import math

from harness.errors import RequestError
from harness.registry import pruner
from harness.run import Run
from pruners import criteria
from pruners.channels.criteria import (
    filter_magnitude,
    filter_norm,
    relative_filter_magnitude,
)
from pruners.channels.units import Channels
from pruners.distributions import per_layer, uniform_plus
from pruners.schedules import geometric_steps
from pruners.training import L1, Taylor, norm_scales, norms_and_head
from pruners.weights import Weights


@pruner("magnitude_u", title="Magnitude-U", when="after", paper="arXiv:1506.02626")
def magnitude_u(run: Run) -> None:
    """Train for half the budget, remove the smallest weights of all layers, continue training.

    Score: ``|v|``, with one threshold for the whole network. Han et al. 2015, arXiv:1506.02626.
    """
    run.train(epochs=run.budget // 2)
    run.prune(Weights, criteria.magnitude, run.sparsity)
    run.train()


@pruner("lamp", title="LAMP", when="after", paper="arXiv:2010.07611")
def lamp(run: Run) -> None:
    """Remove the smallest weights, measured against the larger ones of their layer.

    Score: ``v^2`` over the sum of the squares that are not smaller in the layer, with one threshold
    for the whole network. Every layer keeps its largest weight. LAMP, Lee et al. 2021,
    arXiv:2010.07611.
    """
    run.train(epochs=run.budget // 2)
    run.prune(Weights, criteria.lamp, run.sparsity)
    run.train()


@pruner(
    "magnitude_uniform_plus", title="Unif+", when="after", group="control", paper="arXiv:2010.07611"
)
def magnitude_uniform_plus(run: Run) -> None:
    """Remove the smallest weights of each layer: all of one sparsity, but for the first and last.

    Score: ``|v|``, ranked within each layer. A first convolution stays whole, and at least a fifth
    of the last layer stays. Gale et al. 2019, arXiv:1902.09574, under the name of Lee et al. 2021,
    arXiv:2010.07611, who compare LAMP with it.
    """
    run.train(epochs=run.budget // 2)
    run.prune(Weights, criteria.magnitude, run.sparsity, scope=uniform_plus)
    run.train()


@pruner("magnitude_s", title="Magnitude-S", when="after", group="structured")
def magnitude_s(run: Run, *, relative: bool = False) -> None:
    """Remove the channels with the smallest mean magnitude.

    Score: ``mean |W_j|``, with one threshold for the whole network. Such scores compare the scales
    of layers, not channels: at high sparsity single channels remain in the layers with the largest
    fan-in, and the network loses nearly all accuracy. This is inherent in the method, and the
    reason why later work compares channels within their layer. ``relative`` does so: ``mean |W_j|``
    over its mean in the group (Molchanov et al. 2017, arXiv:1611.06440).

    Args:
        run: the run.
        relative: whether to compare channels with those of their own layer only.
    """
    run.train(epochs=run.budget // 2)
    run.prune(Channels, relative_filter_magnitude if relative else filter_magnitude, run.sparsity)
    run.train()


@pruner(
    "efficient_convnets",
    title="EfficientConvNets",
    when="after",
    group="structured",
    paper="arXiv:1608.08710",
)
def efficient_convnets(run: Run) -> None:
    """Remove the same ratio of each layer's filters: those with the smallest L1 norms.

    Score: ``sum |W_j|``, ranked within each layer. Li et al. 2017, arXiv:1608.08710.

    Deviation: the original spares sensitive layers, which its authors chose for each network.
    """
    run.train(epochs=run.budget // 2)
    run.prune(Channels, filter_norm, run.sparsity, scope=per_layer)
    run.train()


@pruner("ltr", title="LTR", when="after", paper="arXiv:2003.02389", exceeds_budget=True)
def ltr(run: Run, *, rounds: int = 5, rewind_epoch: int = 1) -> None:
    """Lottery ticket rewinding: train, remove the smallest weights, rewind, and repeat.

    Score: ``|v|``, with one threshold for the whole network. Rewinding restores weights, optimizer
    and schedule of epoch ``rewind_epoch``; masks stay. Renda et al. 2020, arXiv:2003.02389.

    Deviation: the original removes 20 % of the remaining weights in each round, 18 rounds for
    98 %. Here ``rounds`` rounds remove equal ratios; five cost about as much as published.

    Args:
        run: the run.
        rounds: how many prunings the sparsity is spread over.
        rewind_epoch: the epoch to whose weights every round returns.
    """
    run.train(epochs=rewind_epoch)
    ticket = run.snapshot()
    for target in geometric_steps(run.sparsity, rounds):
        run.rewind(ticket)
        run.train()
        run.prune(Weights, criteria.magnitude, target)
    run.rewind(ticket)
    run.train()


@pruner(
    "lr_rewinding",
    title="LR rewinding",
    when="after",
    paper="arXiv:2003.02389",
    exceeds_budget=True,
    limits={"rounds": "[1, inf)"},
)
def lr_rewinding(run: Run, *, rounds: int = 5) -> None:
    """Train, remove the smallest weights, and repeat with the learning rates from the start.

    Score: ``|v|``, with one threshold for the whole network. Weights stay as they are; only the
    learning-rate schedule and the data start again. Renda et al. 2020, arXiv:2003.02389.

    Deviation: as for ``ltr``, ``rounds`` rounds remove equal ratios, where the original removes
    20 % of the remaining weights in each round.

    Args:
        run: the run.
        rounds: how many prunings the sparsity is spread over.
    """
    start = run.snapshot()
    run.train()
    for target in geometric_steps(run.sparsity, rounds):
        run.prune(Weights, criteria.magnitude, target)
        run.rewind(start, weights=False)
        run.train()


@pruner(
    "gate_decorators",
    title="GateDecorators",
    when="after",
    needs=["gradients", "normalisation"],
    group="structured",
    paper="arXiv:1909.08174",
)
def gate_decorators(
    run: Run, *, ticks: int = 20, ratio: float = 0.0, strength: float = 1e-3
) -> None:
    """Tick: train gates and head, remove what matters least. Tock: train all with small gates.

    Score: ``|phi dL/dphi|`` summed over the steps of a Tick, for a gate ``phi`` that takes the
    place of the scale of normalisation. All Ticks together take 15 % of the budget, and each
    removes an equal ratio of the remaining weights. A Tock, with an L1 penalty on the gates,
    follows every five Ticks and is as long as they are. GateDecorators, You et al. 2019,
    arXiv:1909.08174. A network without normalisation has no gates.

    Deviations: the original begins with a Tock, trains each Tick for an epoch, inserts a Tock
    after ten, uses learning rates of its own, and keeps a tenth of each layer, where the minimum
    here is that of every method.

    Args:
        run: the run.
        ticks: number of Ticks; fewer if the budget has too few steps for them.
        ratio: fraction removed in each Tick, which decides their number; 0 uses ``ticks`` instead.
            The original removes 0.5 % of the filters; ``ratio=0.005`` does so with the weights.
        strength: factor of the L1 penalty on the scales in a Tock.

    Raises:
        RequestError: the ratio needs more Ticks than the budget has steps for, or is not below 1.
    """
    most = max(1, int(0.15 * (run.budget * run.steps_per_epoch)))
    if ratio and (ticks := _ticks_for(run.sparsity, ratio)) > most:
        raise RequestError(f"ratio={ratio:g} takes {ticks} Ticks; this budget has steps for {most}")
    ticks = min(ticks, most)
    tick = most // ticks
    run.train(epochs=run.budget // 2)
    for number, target in enumerate(geometric_steps(run.sparsity, ticks), start=1):
        watched = run.train(steps=tick, only=norms_and_head, watch=Taylor())
        assert watched.scores is not None
        run.prune(Channels, watched.scores, target)
        if number % 5 == 0:
            run.train(steps=5 * tick, penalty=L1(norm_scales, strength))
    run.train()


def _ticks_for(sparsity: float, ratio: float) -> int:
    """Return how many Ticks reach a sparsity if each removes a ratio of what remains."""
    if ratio >= 1:
        raise RequestError(f"ratio={ratio:g} is not below 1, as in ratio=0.005")
    return max(1, math.ceil(math.log(1 - sparsity) / math.log(1 - ratio)))
