"""What the data of this task are: a simulator's, described without importing it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.data.description import DataDescription

SEMANTICS = (
    "CartPole-v0: Euler steps of 0.02 s, reward 1 per step, "
    "terminated beyond 2.4 m or 12 degrees, truncated after 200 steps"
)


def describe(profile: str, settings: Mapping[str, Any], data_folder: Path) -> DataDescription:
    """Return the simulator's name; its fingerprint is that of the environment's semantics."""
    fingerprint = hashlib.sha256(SEMANTICS.encode()).hexdigest()
    return DataDescription("synthetic", "gymnasium CartPole-v0", fingerprint)
