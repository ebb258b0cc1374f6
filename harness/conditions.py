"""The conditions of a run that hold for every task and pruner alike, set by ``--set``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.errors import RequestError

DEFAULTS: Mapping[str, str | float] = {
    "schedule": "equal",
    "warmup": 0.0,
    "statistics": "batch",
    "scoring": "whole",
    "masks": "scored",
    "weights": "inherited",
    "start": "new",
    "kernel": "off",
    "precision": "float32",
    "channels_last": "off",
    "floor": 0.0,
    "rounding": 1,
}
"""Learning-rate schedule; the share of the budget over which the rate of ``equal`` rises to its
constant value (0.05 was the default of engine version 1); the run whose dense network this one
begins from, or a new one; BatchNorm statistics while scoring; whether the tangent
kernel is measured; precision and memory layout of training steps (`harness.training.precision`);
the share of each layer's weights, or of each group's channels, that no method removes: with a floor
of 0 the last channel of a group stays all the same, and layers of single weights may be emptied.
The others are the sanity checks of Frankle et al. 2021 (arXiv:2009.08576) and Su et al. 2020
(arXiv:2009.11094): scoring with fewer than half of the scoring batches; masks that are shuffled
within each layer after scoring, or made of the smallest scores; weights that are drawn anew after
each pruning."""

CHOICES: Mapping[str, Sequence[str]] = {
    "schedule": ("equal", "onecycle", "official"),
    "statistics": ("batch", "running"),
    "scoring": ("whole", "half"),
    "masks": ("scored", "shuffled", "inverted"),
    "weights": ("inherited", "redrawn"),
    "kernel": ("off", "on"),
    "precision": ("float32", "bfloat16"),
    "channels_last": ("off", "on"),
    "optimiser": ("adam", "adamw", "sgd"),
}
"""The permitted values; ``optimiser`` is a setting that every task has."""

LIMITS: Mapping[str, str] = {"floor": "[0, 1]", "warmup": "[0, 0.5]"}
"""The permitted values of numbers, as intervals. From the middle of the budget on the rate falls,
so that a warm-up ends before."""


def check(values: Mapping[str, str | float]) -> None:
    """Refuse conditions that contradict each other.

    Raises:
        RequestError: they do.
    """
    if values["warmup"] and values["schedule"] != "equal":
        raise RequestError(
            f"warmup={values['warmup']:g}: belongs to schedule=equal; "
            f"the schedule {values['schedule']!r} has its own beginning"
        )
