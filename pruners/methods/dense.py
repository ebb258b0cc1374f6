"""Methods that prune nothing: the dense network, observed, and a narrow one."""

from __future__ import annotations

from harness.errors import RequestError
from harness.registry import pruner
from harness.run import Run
from harness.trigger import Trigger
from pruners import criteria
from pruners.channels.criteria import (
    norm_scale,
)
from pruners.channels.units import Channels
from pruners.distributions import per_layer
from pruners.triggers import LazyRegime, MaskDistance
from pruners.weights import Weights


@pruner("dense", title="Dense", when="never", group="dense", prunes=False)
def dense(run: Run) -> None:
    """Train the whole network."""
    run.train()


@pruner(
    "dense_observed",
    title="Dense, triggers observed",
    when="never",
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
    when="never",
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
