"""Methods that prune a trained network."""

from __future__ import annotations

from harness.registry import pruner
from harness.run import Run
from pruners.criteria import magnitude
from pruners.schedules import geometric_steps
from pruners.weights import Weights


@pruner("magnitude_u", title="Magnitude-U", paper="arXiv:1506.02626")
def magnitude_u(run: Run) -> None:
    """Train for half the budget, remove the smallest weights of all layers, go on training."""
    run.train(epochs=run.budget // 2)
    run.prune(Weights, magnitude, run.sparsity)
    run.train()


@pruner("ltr", title="LTR", paper="arXiv:2003.02389", exceeds_budget=True)
def ltr(run: Run, *, rounds: int = 5, rewind_epoch: int = 1) -> None:
    """Lottery ticket rewinding: train, remove the smallest weights, go back, again and again.

    Deviation: the original removes 20 % of what remains in each round, 18 rounds for 98 %; here
    ``rounds`` rounds remove equal ratios, which is about what the published costs amount to.
    """
    run.train(epochs=rewind_epoch)
    ticket = run.snapshot()
    for target in geometric_steps(run.sparsity, rounds):
        run.rewind(ticket)
        run.train()
        run.prune(Weights, magnitude, target)
    run.rewind(ticket)
    run.train()
