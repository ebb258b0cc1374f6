"""Methods that prune at initialisation.

All of them score the network on five batches of training data, where the originals take one
batch (SNIP) or ten samples per class (GraSP), and train from the weights that were scored.
"""

from __future__ import annotations

from harness.registry import pruner
from harness.run import Run
from pruners.criteria import crop, grasp, snip, synflow
from pruners.schedules import geometric_steps, halving_steps
from pruners.weights import Weights


@pruner("snip", title="SNIP", paper="arXiv:1810.02340")
def snip_(run: Run) -> None:
    """Keep the weights whose removal changes the loss most."""
    run.prune(Weights, snip, run.sparsity)
    run.train()


@pruner("snipit_u", title="SNIP-it", paper="arXiv:2006.00896")
def snipit_u(run: Run, *, steps: int = 5) -> None:
    """Prune with SNIP, a little at a time."""
    run.prune(Weights, snip, halving_steps(run.sparsity, steps))
    run.train()


@pruner("grasp", title="GraSP", paper="arXiv:2002.07376")
def grasp_(run: Run) -> None:
    """Keep the weights whose removal would weaken the gradient flow most."""
    run.prune(Weights, grasp, run.sparsity)
    run.train()


@pruner("synflow", title="SynFlow", paper="arXiv:2006.05467")
def synflow_(run: Run, *, rounds: int = 100) -> None:
    """Keep the weights that carry most of the synaptic flow, without looking at data."""
    run.prune(Weights, synflow, geometric_steps(run.sparsity, rounds))
    run.train()


@pruner("crop_u", title="CroP-U", paper="arXiv:2206.10451")
def crop_u(run: Run) -> None:
    """Keep the weights whose removal changes the gradient flow most."""
    run.prune(Weights, crop, run.sparsity)
    run.train()


@pruner("cropit_u", title="CroPit-U", paper="arXiv:2206.10451")
def cropit_u(run: Run, *, steps: int = 5) -> None:
    """Prune with CroP, a little at a time."""
    run.prune(Weights, crop, halving_steps(run.sparsity, steps))
    run.train()
