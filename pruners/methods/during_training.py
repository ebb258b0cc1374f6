"""Methods that prune while the network trains."""

from __future__ import annotations

from harness.registry import pruner
from harness.run import Pattern, Run
from pruners import criteria
from pruners.training import SparseForward
from pruners.weights import Weights


@pruner(
    "sr_ste",
    title="SR-STE",
    when="during",
    paper="arXiv:2102.04010",
    prunes=False,
    limits={"n": "[1, inf)", "m": "[2, inf)", "strength": "[0, inf)"},
)
def sr_ste(run: Run, *, n: int = 2, m: int = 4, strength: float = 2e-4) -> None:
    """Train all weights, with only the ``n`` largest of every ``m`` in the forward pass.

    Every step chooses a mask ``k`` of the ``n`` largest magnitudes among ``m`` consecutive inputs
    of an output, and is ``w <- w - eta (dL/d(k w) + lambda (1 - k) w)``: the gradient goes straight
    through the mask, and masked weights shrink. The last mask is made permanent. The sparsity
    follows from the pattern, as in ``nm_magnitude``. SR-STE, Zhou et al. 2021, arXiv:2102.04010.

    Args:
        run: the run.
        n: how many of the inputs of a block take part.
        m: the inputs of a block.
        strength: how fast masked weights shrink, ``lambda``.
    """
    pattern = Pattern(n, m)
    run.train(masked=SparseForward(pattern, strength))
    run.prune(Weights, criteria.magnitude, pattern)
    run.train()
