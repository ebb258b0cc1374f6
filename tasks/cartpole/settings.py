"""The settings of CartPole, and the description of its simulator. Does not import torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from harness.data.description import DataDescription
from harness.settings import Interval, Recipe


@dataclass(frozen=True, kw_only=True)
class CartPoleSettings(Recipe):
    """What can be set for CartPole."""

    steps_per_epoch: Annotated[int, "optimizer steps in an epoch"]
    hidden: Annotated[int, "units in each of the two hidden layers"] = 128
    discount: Annotated[float, "discount of future rewards"] = 0.98
    reward_scale: Annotated[float, "factor of rewards; 1 - discount keeps values below 1"] = 0.02
    target_rate: Annotated[
        float, "share of the way that the target network follows in each step"
    ] = 0.1
    environments: Annotated[int, "environments, each of which takes a step per optimizer step"]
    replay_capacity: Annotated[int, "transitions that the replay holds"]
    warm_up_transitions: Annotated[int, "transitions of a random policy before training"]
    exploration_start: Annotated[
        float, "probability of a random action at first", Interval("[0, 1]")
    ] = 1.0
    exploration_end: Annotated[
        float, "probability of a random action in the end", Interval("[0, 1]")
    ] = 0.05
    exploration_steps: Annotated[int, "steps in which that probability falls"]


CARTPOLE = CartPoleSettings(
    epochs=32,
    steps_per_epoch=500,
    batch_size=128,
    optimiser="adam",
    learning_rate=1e-3,
    weight_decay=0.0,
    clip=10.0,
    environments=8,
    replay_capacity=130000,
    warm_up_transitions=2000,
    exploration_steps=5000,
)

PROFILES = {
    "smoke": replace(
        CARTPOLE,
        epochs=2,
        steps_per_epoch=20,
        batch_size=32,
        environments=4,
        replay_capacity=1000,
        warm_up_transitions=200,
        exploration_steps=20,
    ),
    "embedded": CARTPOLE,
    "paper": replace(CARTPOLE, epochs=100),
}

SEMANTICS = (
    "CartPole-v0: Euler steps of 0.02 s, reward 1 per step, "
    "terminated beyond 2.4 m or 12 degrees, truncated after 200 steps"
)
"""The environment; identities of runs are made with this text."""


def describe(profile: str, settings: Mapping[str, Any], data_folder: Path) -> DataDescription:
    """Describe the simulator; the fingerprint is that of the environment's semantics."""
    fingerprint = hashlib.sha256(SEMANTICS.encode()).hexdigest()
    return DataDescription("synthetic", "gymnasium CartPole-v0", fingerprint)
