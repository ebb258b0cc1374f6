"""The agent's experience, and the stream of batches drawn from it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harness.seeds import derive
from tasks.cartpole.environment import ACTIONS, OBSERVATION_SIZE, Environments, Transitions
from tasks.cartpole.settings import CartPoleSettings


class Batch(NamedTuple):
    """Transitions to learn from."""

    transitions: Transitions
    targets: Tensor | None
    """Targets for the values of the taken actions (samples,).

    None for targets that the trained network computes itself.
    """


class Replay:
    """A ring of the latest transitions.

    Args:
        capacity: how many it holds; a new transition replaces the oldest.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._added = 0
        self._ring = Transitions(
            observations=torch.zeros(capacity, OBSERVATION_SIZE),
            actions=torch.zeros(capacity, dtype=torch.long),
            rewards=torch.zeros(capacity),
            next_observations=torch.zeros(capacity, OBSERVATION_SIZE),
            terminated=torch.zeros(capacity, dtype=torch.bool),
            truncated=torch.zeros(capacity, dtype=torch.bool),
        )

    def __len__(self) -> int:
        return min(self._added, self._capacity)

    def add(self, transitions: Transitions) -> None:
        """Add transitions."""
        count = len(transitions.actions)
        places = torch.arange(self._added, self._added + count) % self._capacity
        for kept, new in zip(self._ring, transitions, strict=True):
            kept[places] = new
        self._added += count

    def at(self, indices: Tensor) -> Transitions:
        """Return the transitions at these places."""
        return Transitions(*(kept[indices] for kept in self._ring))

    def sample(self, count: int, generator: torch.Generator) -> Transitions:
        """Return transitions drawn uniformly, with replacement."""
        return self.at(torch.randint(len(self), (count,), generator=generator))

    def state(self) -> dict[str, Any]:
        """Return all transitions."""
        ring = {name: kept.clone() for name, kept in self._ring._asdict().items()}
        return {"added": self._added, "ring": ring}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a state."""
        self._added = state["added"]
        for name, kept in self._ring._asdict().items():
            kept.copy_(state["ring"][name])


def warm_up(settings: CartPoleSettings, seed: int) -> Replay:
    """Return a replay with transitions of a random policy, a function of the seed alone."""
    generator = torch.Generator().manual_seed(derive(seed, "warm-up actions"))
    environments = make_environments(settings, seed, "warm-up environment")
    replay = Replay(settings.replay_capacity)
    shape = (settings.environments,)
    for _ in range(-(-settings.warm_up_transitions // settings.environments)):
        replay.add(environments.step(torch.randint(ACTIONS, shape, generator=generator)))
    return replay


def make_environments(settings: CartPoleSettings, seed: int, purpose: str) -> Environments:
    """Return the environments that take a step for each optimizer step.

    Args:
        settings: those of the task.
        seed: the run's seed.
        purpose: distinguishes the random streams of training and warm-up.
    """
    return Environments([derive(seed, purpose, i) for i in range(settings.environments)])


class Experience:
    """The batches of deep Q-learning (Mnih et al. 2015, Algorithm 1); a `harness.task.Stream`.

    For every batch the agent takes one step in each environment. Deviations: the target network
    follows gradually (Lillicrap et al. 2016), where the paper copies it at intervals; rewards are
    scaled instead of clipped; and an episode cut off by the time limit is bootstrapped like any
    other step.

    Args:
        model: the initial network, of which the target network is a copy.
        settings: those of the task.
        seed: the run's seed.
        device: the device of the batches.
    """

    companions: Sequence[nn.Module]

    def __init__(
        self, model: nn.Module, settings: CartPoleSettings, seed: int, device: torch.device
    ) -> None:
        self._settings = settings
        self._device = device
        self._target = copy.deepcopy(model).requires_grad_(False)
        self.companions = (self._target,)
        self._replay = warm_up(settings, seed)
        self._environments = make_environments(settings, seed, "environment")
        self._exploration = torch.Generator().manual_seed(derive(seed, "exploration"))
        self._sampling = torch.Generator().manual_seed(derive(seed, "replay"))
        self._position = 0

    @torch.no_grad()
    def next(self, model: nn.Module) -> Batch:
        """Act, store the transitions, update the target network and return a batch."""
        actions = self._epsilon_greedy(model, self._environments.observations)
        self._replay.add(self._environments.step(actions))
        for target, online in zip(self._target.parameters(), model.parameters(), strict=True):
            target.lerp_(online, self._settings.target_rate)
        self._position += 1
        sample = self._replay.sample(self._settings.batch_size, self._sampling)
        transitions = to_device(sample, self._device)
        return Batch(transitions, td_targets(self._target, transitions, self._settings))

    @property
    def exploration_rate(self) -> float:
        """The probability of a random action, which falls linearly and then stays."""
        start, end = self._settings.exploration_start, self._settings.exploration_end
        progress = min(1.0, self._position / self._settings.exploration_steps)
        return float(start + (end - start) * progress)

    def _epsilon_greedy(self, model: nn.Module, observations: Tensor) -> Tensor:
        greedy = model(observations.to(self._device)).argmax(dim=1).cpu()
        # Both draws are made in every step, so that all pruners get the same random numbers.
        explore = torch.rand(greedy.shape, generator=self._exploration) < self.exploration_rate
        random = torch.randint(ACTIONS, greedy.shape, generator=self._exploration)
        return torch.where(explore, random, greedy)

    def state(self) -> dict[str, Any]:
        """Return the state of environments, replay, target network and random generators."""
        target = self._target.state_dict()
        return {
            "position": self._position,
            "target": {name: tensor.clone() for name, tensor in target.items()},
            "replay": self._replay.state(),
            "environments": self._environments.state(),
            "exploration": self._exploration.get_state(),
            "sampling": self._sampling.get_state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a state."""
        self._position = state["position"]
        self._target.load_state_dict(state["target"])
        self._replay.restore(state["replay"])
        self._environments.restore(state["environments"])
        self._exploration.set_state(state["exploration"])
        self._sampling.set_state(state["sampling"])


@torch.no_grad()
def td_targets(network: nn.Module, transitions: Transitions, settings: CartPoleSettings) -> Tensor:
    """Return scaled reward plus discounted best next value (samples,); after a fall that is 0."""
    best: Tensor = network(transitions.next_observations).amax(dim=1)
    future = settings.discount * best * ~transitions.terminated
    return settings.reward_scale * transitions.rewards + future


def to_device(transitions: Transitions, device: torch.device) -> Transitions:
    """Return the transitions on a device."""
    return Transitions(*(tensor.to(device) for tensor in transitions))
