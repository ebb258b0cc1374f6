"""Methods that prune a little again and again while the network trains."""

from __future__ import annotations

import math
from collections.abc import Mapping

from harness.errors import RequestError
from harness.registry import pruner
from harness.run import Run
from harness.units import Scope
from pruners import criteria
from pruners.channels.units import Channels
from pruners.distributions import erdos_renyi_kernel, per_layer, whole_network
from pruners.schedules import cubic_sparsity, equal_parts, geometric_steps
from pruners.training import SquaredTaylor
from pruners.weights import Weights

DISTRIBUTIONS: Mapping[str, Scope] = {
    "global": whole_network,
    "uniform": per_layer,
    "erk": erdos_renyi_kernel,
}


@pruner(
    "gmp",
    title="GMP",
    when="during",
    paper="arXiv:1710.01878",
    choices={"distribution": ["global", "uniform", "erk"]},
    limits={"first": "[0, 1)", "last": "(0, 1)", "every": "[0, inf)"},
)
def gmp(
    run: Run,
    *,
    distribution: str = "global",
    first: float = 0.0,
    last: float = 0.75,
    every: int = 0,
) -> None:
    """Remove the smallest weights every few steps, many at first and fewer later.

    Score: ``|v|``. At step ``t`` the sparsity is ``rho (1 - (1 - (t - t_0) / (t_1 - t_0))^3)``.
    Gradual magnitude pruning, Zhu and Gupta 2017, arXiv:1710.01878.

    Deviation: the original prunes every 100 steps, and so do long runs here. In a short run the
    interval is one fiftieth of the budget.

    Args:
        run: the run.
        distribution: of the sparsity over layers: one threshold for all weights (global), the same
            sparsity in each layer (uniform), or sparser large layers (erk).
        first: the fraction of the budget before the first pruning, ``t_0``.
        last: the fraction of the budget before the last pruning, ``t_1``.
        every: steps between two prunings; 0 takes one fiftieth of the budget, at most 100 steps.

    Raises:
        RequestError: the last pruning is not after the first.
    """
    begin, end = round(first * _steps(run)), round(last * _steps(run))
    if begin >= end:
        raise RequestError(f"first={first:g} and last={last:g} leave no step for pruning")
    interval = _interval(run, every)
    for moment in [*range(begin + interval, end, interval), end]:
        run.train(steps=moment - run.position)
        target = cubic_sparsity(run.sparsity, (moment - begin) / (end - begin))
        scope = DISTRIBUTIONS[distribution]
        run.prune(Weights, criteria.magnitude, target, scope, measured=moment == end)
    run.train()


@pruner(
    "rigl",
    title="RigL",
    when="during",
    needs=["dense gradients"],
    paper="arXiv:1911.11134",
    limits={"share": "(0, 1]", "last": "(0, 1]", "every": "[0, inf)"},
)
def rigl(run: Run, *, share: float = 0.3, last: float = 0.75, every: int = 0) -> None:
    """Train a sparse network, and let small weights make room for those with large gradients.

    Start: random weights of an Erdos-Renyi kernel distribution. At step ``t`` each layer exchanges
    the fraction ``share / 2 (1 + cos(pi t / t_1))`` of its weights: those with the smallest
    ``|v|`` for those with the largest ``|g|``, which start at zero. RigL, Evci et al. 2020,
    arXiv:1911.11134.

    Deviations: the gradient is that of one of the scoring batches, drawn at random, where the
    original takes the training batch of the step; the first layer is as sparse as its share says,
    where the original keeps it whole; the original exchanges every 100 steps, and so do long runs
    here.

    Args:
        run: the run.
        share: the fraction of weights that the first exchanges replace.
        last: the fraction of the budget before the last exchange, ``t_1``.
        every: steps between two exchanges; 0 takes one fiftieth of the budget, at most 100 steps.
    """
    run.prune(Weights, criteria.random, run.sparsity, erdos_renyi_kernel)
    interval, end = _interval(run, every), round(last * _steps(run))
    for moment in range(interval, end, interval):
        run.train(steps=interval)
        now = share / 2 * (1 + math.cos(math.pi * moment / end))
        run.exchange(Weights, now, drop=criteria.magnitude, grow=criteria.dense_gradient)
    run.train()


@pruner(
    "set",
    title="SET",
    when="during",
    paper="doi:10.1038/s41467-018-04316-3",
    limits={"share": "(0, 1]"},
)
def sparse_evolutionary_training(run: Run, *, share: float = 0.3) -> None:
    """Train a sparse network, and exchange its smallest weights for random ones in every epoch.

    Start: random weights of an Erdos-Renyi kernel distribution. After each epoch but the last, each
    layer exchanges the fraction ``share`` of its weights: those with the smallest ``|v|`` for
    random ones, which start at zero. Sparse evolutionary training, Mocanu et al. 2018,
    doi:10.1038/s41467-018-04316-3.

    Deviation: the distribution counts the elements of kernels, where the original has layers
    without kernels only.

    Args:
        run: the run.
        share: the fraction of weights that an exchange replaces.
    """
    run.prune(Weights, criteria.random, run.sparsity, erdos_renyi_kernel)
    for _ in range(run.budget - 1):
        run.train(epochs=1)
        run.exchange(Weights, share, drop=criteria.magnitude, grow=criteria.random)
    run.train()


@pruner(
    "acdc",
    title="AC/DC",
    when="during",
    paper="arXiv:2106.12379",
    limits={"dense": "[0, 1)", "phase": "(0, 1)", "final": "(0, 1)"},
)
def acdc(run: Run, *, dense: float = 0.1, phase: float = 0.05, final: float = 0.15) -> None:
    """Alternate between a sparse and a dense network, and end with the sparse one.

    Score: ``|v|``, with one threshold for the whole network. Dense and sparse phases of equal
    length alternate after a dense warm-up. In a dense phase the removed weights train again from
    zero. The last dense phase is twice as long, and a long sparse one follows. Peste et al. 2021,
    arXiv:2106.12379. The defaults are those of its ResNet50, in fractions of the budget.

    Args:
        run: the run.
        dense: the fraction of the budget before the first sparse phase.
        phase: the fraction of the budget that each phase takes.
        final: the fraction of the budget that the last sparse phase takes.

    Raises:
        RequestError: the dense phases, a sparse one and the last phases take more than the budget.
    """
    last = 1 - final - 2 * phase
    if dense + phase > last:
        raise RequestError(
            f"dense={dense:g}, phase={phase:g} and final={final:g} leave no room for a sparse "
            "phase before the last one"
        )

    def train_until(fraction: float) -> None:
        run.train(steps=round(fraction * _steps(run)) - run.position)

    pairs = round((last - dense - phase) / (2 * phase), 6)
    for number in range(math.floor(pairs) + 1):
        compression = dense + 2 * number * phase
        train_until(compression)
        run.prune(Weights, criteria.magnitude, run.sparsity)
        train_until(compression + phase)
        run.release(Weights)
    train_until(1 - final)
    run.prune(Weights, criteria.magnitude, run.sparsity)
    run.train()


@pruner(
    "taylor_s",
    title="Taylor-FO",
    when="during",
    needs=["gradients"],
    group="structured",
    paper="arXiv:1906.10771",
    limits={"rounds": "[1, inf)"},
)
def taylor_s(run: Run, *, rounds: int = 20) -> None:
    """Train, then remove a few channels at a time: those whose removal changes the loss least.

    Score: ``(dL/dc)^2`` for a gate ``c = 1``, the mean over the training steps since the last
    pruning; it takes the gradients of training, and no others. The prunings fall into the third
    quarter of the budget, and each removes an equal ratio of the remaining weights. Molchanov et
    al. 2019, arXiv:1906.10771.

    Deviations: the original removes equal numbers of channels every 10 to 30 steps; its code
    averages the scores over rounds, with a momentum of 0.9, and divides those of coupled channels
    by the number of layers that they belong to. Its gates come after normalisation, as here. In a
    layer without one, the gate is on the weights that compute the channel, as in its other form.

    Args:
        run: the run.
        rounds: how many prunings the sparsity is spread over; fewer if the budget has too few
            steps for them.
    """
    run.train(epochs=run.budget // 2)
    parts = equal_parts(_steps(run) // 4, rounds)
    for steps, target in zip(parts, geometric_steps(run.sparsity, len(parts)), strict=True):
        watched = run.train(steps=steps, watch=SquaredTaylor())
        assert watched.scores is not None
        run.prune(Channels, watched.scores, target, measured=target == run.sparsity)
    run.train()


def _steps(run: Run) -> int:
    """Return the steps in the budget."""
    return run.budget * run.steps_per_epoch


def _interval(run: Run, every: int) -> int:
    """Return the steps between two changes: as asked for, or a fiftieth, at most 100."""
    return every or max(1, min(100, _steps(run) // 50))
