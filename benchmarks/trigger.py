"""When training enters the lazy regime: the trigger's curve, and whether it fires before the cap.

    python -m benchmarks.trigger [TASK ...] [--seed 0]

Until the first pruning every method trains the same network on the same batches, and the
threshold only decides where on the curve to stop: so one dense training up to the cap gives the
reading for every sparsity. `benchmarks.moment` shows what that moment is worth.
"""

from __future__ import annotations

import argparse
import math

from benchmarks.measurement import embedded_task
from harness.prunable import prunable_weights
from harness.training.trainer import Trainer
from pruners.triggers import lazy_regime
from reports.moments import lazy_threshold

TASKS = ("digits", "ptb")
SPARSITIES = (0.80, 0.90, 0.95, 0.98)
NORMS = {2: "squared distances", 1: "distances (norm_power=1)"}


def main() -> None:
    """Print the curve of each task and, for each sparsity, the epoch after which it prunes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trigger")
    parser.add_argument("tasks", nargs="*", default=TASKS, metavar="TASK")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name in arguments.tasks:
        for norm_power, values in curves(name, arguments.seed).items():
            print(f"{name}, seed {arguments.seed}, {NORMS[norm_power]}, after each epoch")
            print("  " + "  ".join(f"{value:.4f}" for value in values))
            for sparsity in SPARSITIES:
                for units in ("weights", "channels"):
                    said = verdict(values, lazy_threshold(units, sparsity))
                    print(f"  {sparsity:.0%} by {units}: {said}")


def curves(task_name: str, seed: int) -> dict[int, list[float]]:
    """Return the trigger's values up to the cap, half of the budget, by the power of its norm."""
    task = embedded_task(task_name)
    trainer = Trainer(task, seed, "equal")
    weights = prunable_weights(trainer.model)
    triggers = {power: lazy_regime(threshold=0.0, norm_power=power) for power in NORMS}
    for trigger in triggers.values():
        trigger.begin(weights)
    values: dict[int, list[float]] = {power: [] for power in NORMS}
    for _ in range(task.settings["epochs"] // 2):
        for _ in range(task.steps_per_epoch):
            trainer.step()
        trainer.mean_loss()
        for power, trigger in triggers.items():
            value = trigger.after_epoch(weights).value
            values[power].append(math.nan if value is None else value)
    return values


def verdict(values: list[float], threshold: float) -> str:
    """Say which comes first: a value below the threshold from the second epoch on, or the cap."""
    for epoch, value in enumerate(values, start=1):
        if epoch > 1 and value < threshold:
            return f"fires after epoch {epoch} ({value:.4f} < {threshold:.3f})"
    return f"never below {threshold:.3f}: the cap prunes after epoch {len(values)}"


if __name__ == "__main__":
    main()
