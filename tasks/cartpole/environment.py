"""Gymnasium's CartPole-v0, several environments at a time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NAME = "CartPole-v0"
STEP_LIMIT = 200
OBSERVATION_SIZE = 4
"""Position and velocity of the cart, angle and angular velocity of the pole."""
ACTIONS = 2
"""Push to the left, push to the right."""

Policy = Callable[[Tensor], Tensor]
"""Maps observations (samples, 4) to actions (samples,)."""


class Transitions(NamedTuple):
    """Steps of environments; the first axis of every tensor counts samples."""

    observations: Tensor
    """Before the step (samples, 4)."""
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor
    """After the step and before any reset (samples, 4)."""
    terminated: Tensor
    """The pole fell or the cart left the track: no reward can follow."""
    truncated: Tensor
    """The time limit cut the episode off: reward would have followed."""

    @property
    def ended(self) -> Tensor:
        """Whether each step was the last of its episode."""
        return self.terminated | self.truncated


class Environments:
    """Several environments; when an episode ends, the next starts at once.

    Every step of every environment is a real transition: a reset takes no step. Up to about eight,
    single environments in a loop are faster than gymnasium's vector environment. Each also has its
    own random numbers: what a policy does in one does not change the initial states of the
    others.

    Args:
        seeds: one for each environment.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._environments = [_make() for _ in seeds]
        first = [
            environment.reset(seed=seed)[0]
            for environment, seed in zip(self._environments, seeds, strict=True)
        ]
        self.observations = torch.from_numpy(np.stack(first))
        """The current observation of each environment (environments, 4)."""
        self._steps = torch.zeros(len(seeds), dtype=torch.long)

    def step(self, actions: Tensor) -> Transitions:
        """Take one step in each environment and reset those whose episode ended."""
        taken = [
            environment.step(action)
            for environment, action in zip(self._environments, actions.tolist(), strict=True)
        ]
        observations, rewards, terminated, _, _ = zip(*taken, strict=True)
        self._steps += 1
        transitions = Transitions(
            self.observations,
            actions,
            torch.tensor(rewards, dtype=torch.float32),
            torch.from_numpy(np.stack(observations)),
            torch.tensor(terminated),
            self._steps >= STEP_LIMIT,
        )
        self.observations = transitions.next_observations.clone()
        for index in transitions.ended.nonzero().flatten().tolist():
            self.observations[index] = torch.from_numpy(self._environments[index].reset()[0])
            self._steps[index] = 0
        return transitions

    def state(self) -> dict[str, Any]:
        """Return the state of every environment, with its random generator."""
        return {
            "observations": self.observations.clone(),
            "steps": self._steps.clone(),
            "physics": torch.tensor(
                np.stack([each.get_wrapper_attr("state") for each in self._environments])
            ),
            "generators": [each.np_random.bit_generator.state for each in self._environments],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a state."""
        self.observations = state["observations"].clone()
        self._steps = state["steps"].clone()
        for environment, physics, generator in zip(
            self._environments, state["physics"], state["generators"], strict=True
        ):
            environment.set_wrapper_attr("state", physics.numpy().copy())
            environment.np_random.bit_generator.state = generator


def episode_returns(policy: Policy, seeds: Sequence[int]) -> Tensor:
    """Return the undiscounted return of one episode for each seed (episodes,)."""
    environments = Environments(seeds)
    returns = torch.zeros(len(seeds))
    running = torch.ones(len(seeds), dtype=torch.bool)
    while running.any():
        transitions = environments.step(policy(environments.observations))
        returns += transitions.rewards * running
        running &= ~transitions.ended
    return returns


def _make() -> gymnasium.Env[NDArray[np.float32], int]:
    """Return the environment without its time limit, which `Environments` enforces."""
    with warnings.catch_warnings():
        # The benchmark is defined on version 0; gymnasium recommends version 1.
        warnings.filterwarnings("ignore", f".*{NAME} is out of date", DeprecationWarning)
        return gymnasium.make(NAME).unwrapped
