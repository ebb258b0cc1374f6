"""What every method is held against."""

from __future__ import annotations

from harness.registry import pruner
from harness.run import Run
from pruners.channels.units import ChannelsByOperations
from pruners.criteria import crop, magnitude, random
from pruners.distributions import erdos_renyi_kernel, per_layer
from pruners.schedules import halving_steps
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


@pruner("earlycrop_u_fixed", title="EarlyCroP-U at the cap", group="control")
def earlycrop_u_fixed(run: Run) -> None:
    """Prune like EarlyCroP at the latest time it may, whatever its trigger would say."""
    run.train(epochs=run.budget // 2)
    run.prune(Weights, crop, halving_steps(run.sparsity))
    run.train()


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
