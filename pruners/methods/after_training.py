"""Methods that prune a trained network, and train it further.

They prune after half of the budget, where the originals train to the end and then fine-tune.
"""

from __future__ import annotations

import math
from functools import partial

from harness.errors import RequestError
from harness.registry import pruner
from harness.run import Pattern, Run
from pruners import activations, criteria
from pruners.channels.criteria import (
    filter_distance,
    filter_lamp,
    filter_magnitude,
    filter_norm,
    group_norm,
    norm_scale,
    relative_filter_magnitude,
)
from pruners.channels.units import Channels
from pruners.distributions import PerOutput, per_layer, uniform_plus
from pruners.schedules import equal_parts, geometric_steps
from pruners.training import (
    L1,
    GroupSparsity,
    SmallestFilters,
    Taylor,
    norm_scales,
    norms_and_head,
)
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


@pruner("fpgm_s", title="FPGM", when="after", group="structured", paper="arXiv:1811.00250")
def fpgm_s(run: Run) -> None:
    """Remove the same ratio of each layer's filters: those that the others can replace.

    Score: ``sum |W_j - W_k|_2`` over all filters ``k`` of the layer, ranked within each layer. It
    is smallest near the geometric median of the filters. FPGM, He et al. 2019, arXiv:1811.00250.

    Deviations: the original sets the filters to zero after every epoch, from which they can
    recover, and removes them in the end; here they are removed once. Its code chooses a tenth of
    the filters by their norms; here the distances choose all.
    """
    run.train(epochs=run.budget // 2)
    run.prune(Channels, filter_distance, run.sparsity, scope=per_layer)
    run.train()


@pruner("lamp_s", title="LAMP-S", when="after", group="structured", paper="arXiv:2010.07611")
def lamp_s(run: Run) -> None:
    """Remove the channels with the smallest share in the squared norm of their layer.

    Score: ``|W_j|^2 / sum |W_k|^2``, over all filters ``k`` of the layer that are not smaller,
    with one threshold for the whole network. LAMP, Lee et al. 2021, arXiv:2010.07611.

    Deviations: the original scores single weights, ``W_j`` being one weight of a layer; and it
    prunes in many rounds with training in between.
    """
    run.train(epochs=run.budget // 2)
    run.prune(Channels, filter_lamp, run.sparsity)
    run.train()


@pruner(
    "slimming",
    title="Network slimming",
    when="after",
    needs=["normalisation"],
    group="structured",
    paper="arXiv:1708.06519",
)
def slimming(run: Run, *, strength: float = 1e-4) -> None:
    """Train with an L1 penalty on the scales of normalisation, remove the smallest scales.

    Score: ``|gamma|``, with one threshold for the whole network; training continues without the
    penalty. Network slimming, Liu et al. 2017, arXiv:1708.06519. A network without normalisation
    has no scales.

    Deviations: coupled channels are scored by the mean of their scales, where the original leaves
    out channels in front of each convolution of a residual block; and it takes a weaker penalty,
    1e-5, for residual networks.

    Args:
        run: the run.
        strength: factor of the L1 penalty on the scales.
    """
    run.train(epochs=run.budget // 2, penalty=L1(norm_scales, strength))
    run.prune(Channels, norm_scale, run.sparsity)
    run.train()


@pruner(
    "group_norm_s",
    title="DepGraph group norm",
    when="after",
    group="structured",
    paper="arXiv:2301.12900",
    limits={"strength": "[0, inf)", "rounds": "[1, inf)"},
)
def group_norm_s(
    run: Run, *, sparse_learning: bool = False, strength: float = 5e-4, rounds: int = 20
) -> None:
    """Remove channels whose coupled weights are small, those that read them included.

    Score: the mean of ``|W[j]|_2^2`` over all weights that are cut with channel ``j``, over its
    mean in the group, computed again after each of ``rounds`` prunings, with one threshold for the
    whole network. Sparse learning first drives the least important channels of each group to
    zero: ``strength gamma_j w`` is added to the gradient of their weights, where ``gamma_j`` is 16
    for the least and 1 for the most important channel. DepGraph, Fang et al. 2023,
    arXiv:2301.12900.

    Each round raises the mean of the groups that lose channels, so that their other channels score
    less in the next. Without sparse learning, at high sparsity, single channels may remain in a
    group; ``rounds=1`` avoids this.

    Deviations: sparse learning takes the second quarter of the budget, where the original has a
    training of its own for it; the factor ``gamma_j`` is that of the paper, where that of the code
    is at most 4; and the original prunes in 400 rounds. Neither trains between them.

    Args:
        run: the run.
        sparse_learning: whether to train with a penalty on channels before the pruning.
        strength: factor of that penalty.
        rounds: how many prunings the sparsity is spread over.
    """
    dense = run.budget // (4 if sparse_learning else 2)
    run.train(epochs=dense)
    if sparse_learning:
        run.train(epochs=run.budget // 2 - dense, penalty=GroupSparsity(strength))
    run.prune(Channels, group_norm, geometric_steps(run.sparsity, rounds))
    run.train()


@pruner(
    "growing_reg_s",
    title="Growing regularisation",
    when="after",
    group="structured",
    paper="arXiv:2012.09243",
    limits={"ceiling": "[0, inf)", "stages": "[1, inf)"},
)
def growing_reg_s(run: Run, *, ceiling: float = 1.0, stages: int = 20) -> None:
    """Drive the filters to be removed to zero by an L2 penalty that grows, and remove them.

    Score: ``sum |W_j|``, ranked within each layer. In the second quarter of the budget the lowest
    share ``p`` of each layer is penalised with ``lambda / 2 |W_j|^2``, where ``lambda`` grows in
    ``stages`` equal steps. Without the share ``p`` of every layer's channels, ``(1 - p)^2`` of the
    weights are left, so that ``p = 1 - sqrt(1 - rho)``. GReg-1, Wang et al. 2021, arXiv:2012.09243.

    Deviations: the original raises ``lambda`` by 1e-4 every five or ten steps, to the same ceiling,
    and then trains on at it; it chooses the filters once, where here they are in each step those
    with the smallest norms, which the penalty makes smaller still.

    Args:
        run: the run.
        ceiling: the largest ``lambda``.
        stages: in how many steps it grows; fewer if the budget has too few steps for them.
    """
    share, dense = 1 - math.sqrt(1 - run.sparsity), run.budget // 4
    run.train(epochs=dense)
    parts = equal_parts((run.budget // 2 - dense) * run.steps_per_epoch, stages)
    for stage, steps in enumerate(parts, start=1):
        run.train(steps=steps, penalty=SmallestFilters(share, ceiling * stage / len(parts)))
    run.prune(Channels, filter_norm, run.sparsity, scope=per_layer)
    run.train()


@pruner(
    "wanda",
    title="Wanda",
    when="after",
    needs=["activations"],
    paper="arXiv:2306.11695",
    limits={"dense": "(0, 1]"},
)
def wanda(run: Run, *, dense: float = 0.5) -> None:
    """Remove the weights that add least to their outputs, from every output the same number.

    Score: ``|w| |x|``, where ``|x|`` is the norm of the weight's input over the scoring batches,
    compared within each output (a row of ``W``, a filter). Wanda, Sun et al. 2024,
    arXiv:2306.11695.

    Deviations: the original does not train afterwards, as with ``dense=1``; it prunes one layer
    after the other, with inputs from the layers pruned before, where all inputs here are those of
    the dense network; it takes 128 sequences of text.

    Args:
        run: the run.
        dense: the fraction of the budget before the pruning; 1 leaves no training afterwards.
    """
    _train_before(run, dense)
    run.prune(Weights, activations.wanda, run.sparsity, scope=PerOutput())
    run.train()


@pruner(
    "ria",
    title="RIA",
    when="after",
    needs=["activations"],
    paper="openreview.net/forum?id=Tr0lPx9woF",
    limits={"dense": "(0, 1]", "power": "[0, inf)"},
)
def ria(run: Run, *, dense: float = 0.5, power: float = 0.5) -> None:
    """Remove the weights that matter least relative to the others of their output and their input.

    Score: ``(|w| / sum |W_row| + |w| / sum |W_column|) |x|^a``, with the norm ``|x|`` of ``wanda``,
    compared within each layer. RIA, Zhang et al. 2024, openreview.net/forum?id=Tr0lPx9woF.

    Deviations: those of ``wanda``.

    Args:
        run: the run.
        dense: the fraction of the budget before the pruning; 1 leaves no training afterwards.
        power: of the norms of inputs, ``a``.
    """
    _train_before(run, dense)
    run.prune(Weights, partial(activations.ria, power=power), run.sparsity, scope=per_layer)
    run.train()


@pruner(
    "sparsegpt",
    title="SparseGPT",
    when="after",
    needs=["activations"],
    paper="arXiv:2301.00774",
    limits={"dense": "(0, 1]", "damping": "(0, inf)"},
)
def sparsegpt(run: Run, *, dense: float = 0.5, damping: float = 0.01) -> None:
    """Remove weights where the others of their output can make up for them, and let them do so.

    Score: ``w^2 / u^2``, with ``u`` on the diagonal of the upper Cholesky factor ``U`` of the
    inverse of ``X X^T``, compared within each layer. Then, input by input, the removal is
    compensated at later inputs: ``w_later -= (w / u) U_later``. SparseGPT, Frantar and Alistarh
    2023, arXiv:2301.00774.

    Deviations: those of ``wanda``; and the weights of a layer are selected all at once, where the
    original selects 128 inputs at a time, after the compensation for those before.

    Args:
        run: the run.
        dense: the fraction of the budget before the pruning; 1 leaves no training afterwards.
        damping: what is added to the diagonal of ``X X^T``, as a share of its mean.
    """
    _train_before(run, dense)
    run.prune(Weights, activations.SparseGPT(damping), run.sparsity, scope=per_layer)
    run.train()


@pruner(
    "nm_magnitude",
    title="N:M magnitude",
    when="after",
    paper="arXiv:2104.08378",
    prunes=False,
    limits={"n": "[1, inf)", "m": "[2, inf)", "dense": "(0, 1]"},
)
def nm_magnitude(run: Run, *, n: int = 2, m: int = 4, dense: float = 0.5) -> None:
    """Keep the ``n`` largest of every ``m`` consecutive inputs of an output, and train on.

    The pattern of sparse matrix units, 2:4, is the default. The sparsity follows from the pattern
    and cannot be requested: 2:4 removes half of each layer that it fits. Layers with fewer than
    ``m`` inputs, and embeddings, stay whole. Score: ``|w|``. Mishra et al. 2021, arXiv:2104.08378
    (ASP).

    Deviation: the original trains to the end, prunes, and repeats the whole training.

    Args:
        run: the run.
        n: how many of the inputs of a block remain.
        m: the inputs of a block.
        dense: the fraction of the budget before the pruning; 1 leaves no training afterwards.
    """
    pattern = Pattern(n, m)
    _train_before(run, dense)
    run.prune(Weights, criteria.magnitude, pattern)
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


def _train_before(run: Run, share: float) -> None:
    """Train for a share of the budget, in whole epochs."""
    run.train(epochs=math.floor(share * run.budget + 1e-9))
