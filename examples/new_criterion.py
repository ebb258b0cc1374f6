"""Gradual pruning by magnitude and gradient."""

from harness.registry import pruner
from harness.run import Run
from harness.scoring import Scores, Scoring
from pruners.schedules import geometric_steps
from pruners.weights import Weights


def sensitive_magnitude(scoring: Scoring) -> Scores:
    """``|v| (1 + |g|)``: large weights, those with a large gradient above all."""
    g = scoring.gradient()
    return {name: v.detach().abs() * (1 + g[name].abs()) for name, v in scoring.variables.items()}


@pruner("gradual", title="Gradual", limits={"rounds": "[1, inf)"})
def gradual(run: Run, *, rounds: int = 2) -> None:
    """Remove an equal ratio in each round, with training in between."""
    epochs = run.budget // (2 * rounds)
    for target in geometric_steps(run.sparsity, rounds):
        run.train(epochs=epochs)
        run.prune(Weights, sensitive_magnitude, target)
    run.train()
