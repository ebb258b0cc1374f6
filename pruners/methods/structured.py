"""Methods that remove whole channels before training: the network is small from the start."""

from __future__ import annotations

from harness.registry import pruner
from harness.run import Run
from pruners.channels.criteria import crop_on_gates
from pruners.channels.units import Channels
from pruners.criteria import random, snip
from pruners.distributions import per_layer
from pruners.schedules import halving_steps


@pruner("random_s", title="Random-S", group="structured")
def random_s(run: Run) -> None:
    """Remove the same ratio of random channels from every layer before training."""
    run.prune(Channels, random, run.sparsity, scope=per_layer)
    run.train()


@pruner("snap", title="SNAP", group="structured", paper="arXiv:2006.00896")
def snap(run: Run) -> None:
    """Keep the channels whose removal changes the loss most: SNIP on gates."""
    run.prune(Channels, snip, run.sparsity)
    run.train()


@pruner("snapit_s", title="SNAP-it", group="structured", paper="arXiv:2006.00896")
def snapit_s(run: Run, *, steps: int = 5) -> None:
    """Prune with SNAP, a little at a time."""
    run.prune(Channels, snip, halving_steps(run.sparsity, steps))
    run.train()


@pruner("crop_s", title="CroP-S", group="structured", paper="arXiv:2206.10451")
def crop_s(run: Run, *, mixed: bool = False, before_norm: bool = False) -> None:
    """Keep the channels whose removal changes the gradient flow most: CroP on gates.

    The official code differs from the paper, and has both options: ``mixed`` scores what a gate
    does to the weights' gradient flow in place of the gates' own, and ``before_norm`` puts the
    gates before normalisation, which then has to use running statistics.
    """
    run.prune(Channels, crop_on_gates(mixed, before_norm), run.sparsity)
    run.train()


@pruner("cropit_s", title="CroPit-S", group="structured", paper="arXiv:2206.10451")
def cropit_s(run: Run, *, steps: int = 5, mixed: bool = False, before_norm: bool = False) -> None:
    """Prune with CroP-S, a little at a time; for the options see ``crop_s``."""
    run.prune(Channels, crop_on_gates(mixed, before_norm), halving_steps(run.sparsity, steps))
    run.train()
