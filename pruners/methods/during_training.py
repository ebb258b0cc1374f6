"""Methods that prune again and again while the network trains."""

from __future__ import annotations

from harness.registry import pruner
from harness.run import Run
from pruners.channels.units import Channels
from pruners.schedules import equal_parts, geometric_steps
from pruners.training import SquaredTaylor


@pruner(
    "taylor_s",
    title="Taylor-FO",
    when="during",
    needs=["gradients"],
    group="structured",
    paper="arXiv:1906.10771",
    limits={"rounds": "[1, inf)"},
)
def taylor_s(run: Run, *, rounds: int = 20) -> None:
    """Train, then remove a few channels at a time: those whose removal changes the loss least.

    Score: ``(dL/dc)^2`` for a gate ``c = 1``, the mean over the training steps since the last
    pruning; it takes the gradients of training, and no others. The prunings fall into the third
    quarter of the budget, and each removes an equal ratio of the remaining weights. Molchanov et
    al. 2019, arXiv:1906.10771.

    Deviations: the original removes equal numbers of channels every 10 to 30 steps, and its code
    adds 0.9 of the scores of the last round to those of the next. Its gates come after
    normalisation, as here; channels of a layer without one are scored by ``(sum w dL/dw)^2`` over
    the weights of their filters, which is the same for a gate behind the layer.

    Args:
        run: the run.
        rounds: how many prunings the sparsity is spread over; fewer if the budget has too few
            steps for them.
    """
    run.train(epochs=run.budget // 2)
    parts = equal_parts(run.budget * run.steps_per_epoch // 4, rounds)
    for steps, target in zip(parts, geometric_steps(run.sparsity, len(parts)), strict=True):
        watched = run.train(steps=steps, watch=SquaredTaylor())
        assert watched.scores is not None
        run.prune(Channels, watched.scores, target)
    run.train()
