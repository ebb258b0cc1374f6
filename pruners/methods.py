"""The methods of the literature, each a short program over a run.

They are ordered by when they prune: never, before training, early in training, after training. A
method in two variants is a pair: U removes single weights, S whole channels.

Notation: ``v`` is a variable, that is a weight, or the gate ``c = 1`` of a channel; ``g`` is the
gradient of the training loss and ``H`` its Hessian, both summed over the scoring batches; ``rho``
is the target sparsity, the fraction of the prunable weights that is removed.

All methods deviate from their papers in the same four respects, so that they can be compared:
every method gets the same data, learning-rate schedule and budget (LTR alone exceeds it); scores
use five batches of training data (the official EarlyCroP code takes test data); biases and
normalisation parameters are never pruned; and the gate of a channel comes after normalisation,
one gate for all coupled channels. Each method lists its further deviations.
"""

from __future__ import annotations

import math

from harness.errors import RequestError
from harness.registry import pruner
from harness.run import Run
from harness.trigger import Trigger
from pruners import criteria
from pruners.channels.criteria import (
    crop_on_gates,
    filter_magnitude,
    filter_norm,
    norm_scale,
    relative_filter_magnitude,
)
from pruners.channels.units import Channels
from pruners.distributions import erdos_renyi_kernel, per_layer
from pruners.schedules import geometric_steps, halving_steps
from pruners.training import L1, Taylor, norm_scales, norms_and_head
from pruners.triggers import LazyRegime, MaskDistance
from pruners.weights import Weights

# Never: the dense network


@pruner("dense", title="Dense", group="dense", prunes=False)
def dense(run: Run) -> None:
    """Train the whole network."""
    run.train()


@pruner(
    "dense_observed",
    title="Dense, triggers observed",
    group="control",
    prunes=False,
    limits={"weight_sparsity": "[0, 1)", "channel_sparsity": "[0, 1)"},
)
def dense_observed(
    run: Run, *, weight_sparsity: float = 0.98, channel_sparsity: float = 0.98, scales: bool = True
) -> None:
    """Train the whole network and record what each trigger reads after each epoch.

    Until it prunes, every method trains the same network on the same batches. One dense training
    therefore shows when each trigger would fire, whatever its threshold: the lazy regime as the
    paper defines it, with distances that are not squared, and as the official code computes it;
    and EarlyBird's mask distance, for weights by their magnitude and for channels by their scales
    (trained without EarlyBird's penalty).

    Args:
        run: the run.
        weight_sparsity: the sparsity of the observed masks of weights, and of the lazy regime.
        channel_sparsity: the sparsity of the observed masks of channels.
        scales: whether to observe masks of channels; false for a network without normalisation.
    """
    lazy = 1 - weight_sparsity
    observed: dict[str, Trigger] = {
        "lazy_regime": LazyRegime(lazy),
        "lazy_regime_not_squared": LazyRegime(lazy, norm_power=1),
        "lazy_regime_official": LazyRegime(lazy, norm_power=1, reference="first_epoch"),
        "mask_distance_u": MaskDistance(Weights, criteria.magnitude, weight_sparsity),
    }
    if scales:
        observed["mask_distance_s"] = MaskDistance(Channels, norm_scale, channel_sparsity)
    run.train(observe=observed)


@pruner(
    "slim_dense",
    title="Slim dense",
    group="control",
    paper="arXiv:1810.05270",
    prunes=False,
    obeys_budgets=True,
    limits={"macs": "(0, 1]"},
)
def slim_dense(run: Run, *, macs: float = 0.1) -> None:
    """Train a narrow dense network: the same ratio of channels in every layer, from the start.

    The network that a structured method has to beat (Liu et al. 2019, arXiv:1810.05270). ``macs``
    is its share of the dense network's multiply-accumulates. Set it to the share in the record of
    the structured method, and both networks are equally fast; or give both the same budget, which
    replaces the option. The sparsity follows from the shape and cannot be requested. The initial
    weights are a part of the wide network's, at its scale.

    Args:
        run: the run.
        macs: the network's multiply-accumulates as a share of the dense network's.

    Raises:
        RequestError: there are both a budget and the option.
    """
    budget = run.spec.budget
    if budget is not None and "macs" in run.spec.overrides:
        raise RequestError(f"macs={macs:g} is replaced by the budget {budget}; give one of them")
    if budget is None:
        run.prune(Channels, criteria.random, 1 - macs, scope=per_layer, of="macs")
    else:
        run.prune(Channels, criteria.random, run.sparsity, scope=per_layer)
    run.train()


# Before training: controls


@pruner("random_u", title="Random-U", group="unstructured")
def random_u(run: Run, *, uniform: bool = False) -> None:
    """Remove random weights before training.

    The default draws from all layers at once, which gives them equal sparsities up to chance.
    ``uniform`` removes exactly the same fraction of every layer, as the official EarlyCroP code
    does in expectation.

    Args:
        run: the run.
        uniform: whether every layer loses the same fraction.
    """
    run.prune(Weights, criteria.random, run.sparsity, scope=per_layer if uniform else None)
    run.train()


@pruner("random_s", title="Random-S", group="structured")
def random_s(run: Run) -> None:
    """Remove the same ratio of random channels from every layer before training."""
    run.prune(Channels, criteria.random, run.sparsity, scope=per_layer)
    run.train()


@pruner("random_erk", title="Random-ERK", group="control", paper="arXiv:1911.11134")
def random_erk(run: Run) -> None:
    """Remove random weights before training, more of them where layers are large.

    The sparsity distribution is the Erdos-Renyi kernel of RigL (Evci et al. 2020,
    arXiv:1911.11134): a layer keeps weights in proportion to the sum of its dimensions.
    """
    run.prune(Weights, criteria.random, run.sparsity, scope=erdos_renyi_kernel)
    run.train()


@pruner("magnitude_initial_u", title="Magnitude-U at initialisation", group="control")
def magnitude_initial_u(run: Run) -> None:
    """Remove the smallest weights before training, by their initial values alone.

    Score: ``|v|``, with one threshold for the whole network.
    """
    run.prune(Weights, criteria.magnitude, run.sparsity)
    run.train()


# Before training: methods. They train the weights that they scored; none reinitialises them.


@pruner("snip", title="SNIP", paper="arXiv:1810.02340")
def snip(run: Run) -> None:
    """Keep the weights whose removal changes the loss most.

    Score: ``|v . g|``, the connection sensitivity. SNIP, Lee et al. 2019, arXiv:1810.02340.

    Deviation: the original scores one batch, and reinitialises the weights after pruning.
    """
    run.prune(Weights, criteria.snip, run.sparsity)
    run.train()


@pruner("snap", title="SNAP", group="structured", paper="arXiv:2006.00896")
def snap(run: Run) -> None:
    """Keep the channels whose removal changes the loss most: SNIP on gates.

    Score: ``|dL/dc|``, which is ``|v . g|`` for gates ``c = 1``. SNAP, Verdenius et al. 2020,
    arXiv:2006.00896.
    """
    run.prune(Channels, criteria.snip, run.sparsity)
    run.train()


@pruner("snipit_u", title="SNIP-it", paper="arXiv:2006.00896")
def snipit_u(run: Run, *, steps: int = 5) -> None:
    """Prune with SNIP, a little at a time.

    Score: that of ``snip``, computed again on the pruned network at each sparsity. The sparsities
    are ``rho - (rho - 1/2) / 2^i``, for ``i`` from 0 to ``steps``, and finally ``rho``. SNIP-it,
    Verdenius et al. 2020, arXiv:2006.00896.

    Args:
        run: the run.
        steps: how often the distance to the target is halved before the last pruning.
    """
    run.prune(Weights, criteria.snip, halving_steps(run.sparsity, steps))
    run.train()


@pruner("snapit_s", title="SNAP-it", group="structured", paper="arXiv:2006.00896")
def snapit_s(run: Run, *, steps: int = 5) -> None:
    """Prune with SNAP, a little at a time.

    Score: that of ``snap``, at the sparsities of ``snipit_u``. Verdenius et al. 2020,
    arXiv:2006.00896.

    Deviation: the intermediate sparsities are those of weights; the original counts channels.

    Args:
        run: the run.
        steps: how often the distance to the target is halved before the last pruning.
    """
    run.prune(Channels, criteria.snip, halving_steps(run.sparsity, steps))
    run.train()


@pruner("grasp", title="GraSP", paper="arXiv:2002.07376")
def grasp(run: Run) -> None:
    """Keep the weights whose removal would weaken the gradient flow most.

    Score: ``v . H g``, with its sign: without ``v`` the flow ``|g|^2`` falls by ``2 v . H g``.
    GraSP, Wang et al. 2020, arXiv:2002.07376.

    Deviations: the original takes ten samples of each class, divides the logits by 200 and
    reinitialises linear layers for scoring. The official EarlyCroP code inverts the sign.
    """
    run.prune(Weights, criteria.grasp, run.sparsity)
    run.train()


@pruner("synflow", title="SynFlow", paper="arXiv:2006.05467")
def synflow(run: Run, *, rounds: int = 100) -> None:
    """Keep the weights that carry most of the synaptic flow, without any data.

    Score: ``v . dR/dv``, where ``R`` is the summed output of the network with all weights replaced
    by their magnitudes, for an input of ones. Round ``n`` prunes to ``1 - (1 - rho)^(n / rounds)``.
    SynFlow, Tanaka et al. 2020, arXiv:2006.05467.

    Args:
        run: the run.
        rounds: how many prunings the sparsity is spread over.
    """
    run.prune(Weights, criteria.synflow, geometric_steps(run.sparsity, rounds))
    run.train()


@pruner("crop_u", title="CroP-U", paper="arXiv:2206.10451")
def crop_u(run: Run) -> None:
    """Keep the weights whose removal changes the gradient flow most.

    Score: ``|v . H g|``. Where GraSP maximises the gradient flow, CroP preserves it. Rachwan et
    al. 2022, arXiv:2206.10451.
    """
    run.prune(Weights, criteria.crop, run.sparsity)
    run.train()


@pruner("crop_s", title="CroP-S", group="structured", paper="arXiv:2206.10451")
def crop_s(run: Run, *, mixed: bool = False, before_norm: bool = False) -> None:
    """Keep the channels whose removal changes the gradient flow most: CroP on gates.

    Score: ``|H g|`` over all gates, which is ``|v . H g|`` for gates ``c = 1``. Rachwan et al.
    2022, arXiv:2206.10451.

    Deviation: the official code differs from the paper in two respects. Both are options.

    Args:
        run: the run.
        mixed: as in the code, score by ``|d/dc <g_W, g_W(c)>|``, the effect of a gate on the
            gradient flow of the weights, instead of that of the gates.
        before_norm: as in the code, put the gates before normalisation. Scoring then uses running
            statistics, because batch statistics would undo the gates.
    """
    run.prune(Channels, crop_on_gates(mixed, before_norm), run.sparsity)
    run.train()


@pruner("cropit_u", title="CroPit-U", paper="arXiv:2206.10451")
def cropit_u(run: Run, *, steps: int = 5) -> None:
    """Prune with CroP, a little at a time.

    Score: that of ``crop_u``, at the sparsities of ``snipit_u``. Rachwan et al. 2022,
    arXiv:2206.10451.

    Args:
        run: the run.
        steps: how often the distance to the target is halved before the last pruning.
    """
    run.prune(Weights, criteria.crop, halving_steps(run.sparsity, steps))
    run.train()


@pruner("cropit_s", title="CroPit-S", group="structured", paper="arXiv:2206.10451")
def cropit_s(run: Run, *, steps: int = 5, mixed: bool = False, before_norm: bool = False) -> None:
    """Prune with CroP-S, a little at a time; for the options see ``crop_s``.

    Score: that of ``crop_s``, at the sparsities of ``snipit_u``. Rachwan et al. 2022,
    arXiv:2206.10451.

    Deviation: the intermediate sparsities are those of weights; the original counts channels.

    Args:
        run: the run.
        steps: how often the distance to the target is halved before the last pruning.
        mixed: score by the effect of a gate on the gradient flow of the weights (``crop_s``).
        before_norm: put the gates before normalisation (``crop_s``).
    """
    run.prune(Channels, crop_on_gates(mixed, before_norm), halving_steps(run.sparsity, steps))
    run.train()


# Early in training


@pruner("earlycrop_u", title="EarlyCroP-U", paper="arXiv:2206.10451", limits={"steps": "[0, inf)"})
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


@pruner("earlybird", title="EarlyBird", group="structured", paper="arXiv:1909.11957")
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


# After training: for half of the budget, where the originals train to the end and then fine-tune


@pruner("magnitude_u", title="Magnitude-U", paper="arXiv:1506.02626")
def magnitude_u(run: Run) -> None:
    """Train for half the budget, remove the smallest weights of all layers, continue training.

    Score: ``|v|``, with one threshold for the whole network. Han et al. 2015, arXiv:1506.02626.
    """
    run.train(epochs=run.budget // 2)
    run.prune(Weights, criteria.magnitude, run.sparsity)
    run.train()


@pruner("magnitude_s", title="Magnitude-S", group="structured")
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
    "efficient_convnets", title="EfficientConvNets", group="structured", paper="arXiv:1608.08710"
)
def efficient_convnets(run: Run) -> None:
    """Remove the same ratio of each layer's filters: those with the smallest L1 norms.

    Score: ``sum |W_j|``, ranked within each layer. Li et al. 2017, arXiv:1608.08710.

    Deviation: the original spares sensitive layers, which its authors chose for each network.
    """
    run.train(epochs=run.budget // 2)
    run.prune(Channels, filter_norm, run.sparsity, scope=per_layer)
    run.train()


@pruner("ltr", title="LTR", paper="arXiv:2003.02389", exceeds_budget=True)
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


@pruner("gate_decorators", title="GateDecorators", group="structured", paper="arXiv:1909.08174")
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
