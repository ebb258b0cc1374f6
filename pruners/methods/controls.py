"""What every method is held against."""

from __future__ import annotations

from harness.errors import RequestError
from harness.registry import pruner
from harness.run import Run
from harness.trigger import Trigger
from pruners.channels.criteria import crop_on_gates, norm_scale
from pruners.channels.units import Channels, ChannelsByOperations
from pruners.criteria import crop, magnitude, random
from pruners.distributions import erdos_renyi_kernel, per_layer
from pruners.schedules import halving_steps
from pruners.triggers import LazyRegime, MaskDistance
from pruners.weights import Weights


@pruner("dense", title="Dense", group="dense", prunes=False)
def dense(run: Run) -> None:
    """Train the whole network."""
    run.train()


@pruner("random_u", title="Random-U", group="unstructured")
def random_u(run: Run, *, uniform: bool = False) -> None:
    """Remove random weights before training.

    ``uniform`` removes the same fraction of every layer, as the official EarlyCroP code does; the
    default draws from all layers alike, which is the same but for chance.
    """
    run.prune(Weights, random, run.sparsity, scope=per_layer if uniform else None)
    run.train()


@pruner("random_erk", title="Random-ERK", group="control", paper="arXiv:1911.11134")
def random_erk(run: Run) -> None:
    """Remove random weights before training, more of them where layers are large."""
    run.prune(Weights, random, run.sparsity, scope=erdos_renyi_kernel)
    run.train()


@pruner("magnitude_initial_u", title="Magnitude-U at initialisation", group="control")
def magnitude_initial_u(run: Run) -> None:
    """Remove the smallest weights before training: what the initialisation alone says."""
    run.prune(Weights, magnitude, run.sparsity)
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

    Until the first pruning every method trains the same network on the same batches. So this
    one training shows when each trigger would fire, whatever its threshold: lazy regime in the
    paper's reading, with distances that are not squared, and as in the official code; and
    EarlyBird's distance of masks, of weights by their magnitude and of channels by their scales,
    each at a sparsity of its own, but trained without its penalty. A network without normalisation
    has no scales: ``scales=false``.
    """
    observed: dict[str, Trigger] = {
        "lazy_regime": LazyRegime(1 - weight_sparsity),
        "lazy_regime_not_squared": LazyRegime(1 - weight_sparsity, norm_power=1),
        "lazy_regime_official": LazyRegime(
            1 - weight_sparsity, norm_power=1, reference="first_epoch"
        ),
        "mask_distance_u": MaskDistance(Weights, magnitude, weight_sparsity),
    }
    if scales:
        observed["mask_distance_s"] = MaskDistance(Channels, norm_scale, channel_sparsity)
    run.train(observe=observed)


@pruner(
    "earlycrop_u_fixed",
    title="EarlyCroP-U, moment fixed",
    group="control",
    version=2,
    limits={"moment": "[0, 1)", "steps": "[0, inf)"},
)
def earlycrop_u_fixed(run: Run, *, moment: float = 0.5, steps: int = 5) -> None:
    """Prune like EarlyCroP-U after a fixed share of the budget, whatever its trigger would say."""
    run.train(epochs=_epochs(run, moment))
    run.prune(Weights, crop, halving_steps(run.sparsity, steps))
    run.train()


@pruner(
    "earlycrop_s_fixed",
    title="EarlyCroP-S, moment fixed",
    group="control",
    limits={"moment": "[0, 1)", "steps": "[0, inf)"},
)
def earlycrop_s_fixed(run: Run, *, moment: float = 0.5, steps: int = 5) -> None:
    """Prune like EarlyCroP-S after a fixed share of the budget, whatever its trigger would say."""
    run.train(epochs=_epochs(run, moment))
    run.prune(Channels, crop_on_gates(), halving_steps(run.sparsity, steps))
    run.train()


def _epochs(run: Run, moment: float) -> int:
    """Return the whole number of epochs that is nearest to a share of the budget.

    Raises:
        RequestError: the budget has no such share that leaves an epoch to train afterwards.
    """
    epochs = round(moment * run.budget)
    if epochs >= run.budget:
        raise RequestError(
            f"moment={moment:g}: leaves no epoch after the pruning; "
            "it is a share of the budget, as in moment=0.5"
        )
    return epochs


@pruner(
    "slim_dense",
    title="Slim dense",
    group="control",
    paper="arXiv:1810.05270",
    prunes=False,
    limits={"macs": "(0, 1]"},
)
def slim_dense(run: Run, *, macs: float = 0.1) -> None:
    """Train a narrow dense network: the same ratio of channels in every layer, from the start.

    What a structured method has to beat (Liu et al. 2019): ``macs`` is what that method's network
    needs of the dense one's multiply-accumulates, as its record says, so that both are equally
    fast. A narrow network has its sparsity by its shape; none can be asked for. Its initial
    weights are a part of the wide network's, whose scale fits the wide one.
    """
    run.prune(ChannelsByOperations, random, 1 - macs, scope=per_layer)
    run.train()
