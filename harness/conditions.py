"""The conditions of a run that hold for every task and pruner alike, set by ``--set``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

DEFAULTS: Mapping[str, str] = {
    "schedule": "equal",
    "statistics": "batch",
    "masks": "scored",
    "kernel": "off",
    "precision": "float32",
    "channels_last": "off",
}
"""Learning-rate schedule; BatchNorm statistics while scoring; whether masks are shuffled within
each layer after scoring (a control); whether the tangent kernel is measured; precision and memory
layout of training steps (`harness.arithmetic`)."""

CHOICES: Mapping[str, Sequence[str]] = {
    "schedule": ("equal", "onecycle", "official"),
    "statistics": ("batch", "running"),
    "masks": ("scored", "shuffled"),
    "kernel": ("off", "on"),
    "precision": ("float32", "bfloat16"),
    "channels_last": ("off", "on"),
    "optimiser": ("adam", "adamw", "sgd"),
}
"""The permitted values; ``optimiser`` is a setting that every task has."""
