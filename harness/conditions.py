"""The conditions of a run that hold for every task and pruner alike, set by ``--set``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

DEFAULTS: Mapping[str, str | float] = {
    "schedule": "equal",
    "statistics": "batch",
    "masks": "scored",
    "kernel": "off",
    "floor": 0.0,
}
"""Learning-rate schedule; BatchNorm statistics while scoring; whether masks are shuffled within
each layer after scoring (a control); whether the tangent kernel is measured; the share of each
layer's weights, or of each group's channels, that no method removes. With a floor of 0 the last
channel of a group stays all the same, and layers of single weights may be emptied."""

CHOICES: Mapping[str, Sequence[str]] = {
    "schedule": ("equal", "onecycle", "official"),
    "statistics": ("batch", "running"),
    "masks": ("scored", "shuffled"),
    "kernel": ("off", "on"),
    "optimiser": ("adam", "adamw", "sgd"),
}
"""The permitted values; ``optimiser`` is a setting that every task has."""
