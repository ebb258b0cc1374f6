"""Methods that prune early in training."""

from __future__ import annotations

from harness.registry import pruner
from harness.run import Run
from pruners.criteria import crop
from pruners.schedules import halving_steps
from pruners.triggers import lazy_regime
from pruners.weights import Weights


@pruner(
    "earlycrop_u",
    title="EarlyCroP-U",
    paper="arXiv:2206.10451",
    limits={"steps": "[0, inf)"},
)
def earlycrop_u(run: Run, *, steps: int = 5, threshold: float = 0.0, norm_power: int = 2) -> None:
    """Prune with CroP, a little at a time, as soon as training turns lazy.

    ``threshold=0`` stands for the paper's: one minus the sparsity; ``steps=0`` prunes in one shot.

    Deviations from the official code: the reference is the initial weights, norms are squared as
    in the paper (``norm_power=1``: they are not), the cap is half the budget, and the total budget
    is that of all other methods.
    """
    lazy = lazy_regime(threshold or 1 - run.sparsity, norm_power)
    run.train(until=lazy, at_most=run.budget // 2)
    run.prune(Weights, crop, halving_steps(run.sparsity, steps))
    run.train()
