"""What masks cost in training: a step of the dense network beside one with 98 % masked."""

from __future__ import annotations

from benchmarks.laboratory import embedded_task, embedded_trainer
from benchmarks.measurement import Comparison, alternate
from pruners.distributions import whole_network
from pruners.weights import Weights

ROUNDS = 40
SPARSITY = 0.98


def measure() -> list[Comparison]:
    """Time the steps of two trainers of one task in turn."""
    lines = []
    for name in ("digits", "ptb"):
        task = embedded_task(name)
        dense, masked = embedded_trainer(task), embedded_trainer(task)
        weights = Weights(masked.model)
        magnitudes = {name: v.detach().abs() for name, v in weights.variables(masked.model).items()}
        kept = weights.select(magnitudes, SPARSITY, whole_network)
        weights.apply(masked.model, masked.optimiser, (), kept)
        masked.units["weights"] = weights
        ours, theirs = alternate(masked.step, dense.step, ROUNDS)
        lines.append(Comparison(f"masked step, {name}", 1e3 * ours, 1e3 * theirs, "ms", 1.10))
    return lines
