"""CartPole-v0 with a multilayer perceptron and deep Q-learning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.registry import task
from harness.seeds import derive
from harness.task import Split, Task, scoring_indices
from tasks.cartpole.environment import ACTIONS, OBSERVATION_SIZE, Policy, episode_returns
from tasks.cartpole.replay import Batch, Experience, td_targets, to_device, warm_up
from tasks.cartpole.settings import CARTPOLE, PROFILES, CartPoleSettings

EPISODES: dict[Split, int] = {"validation": 20, "test": 100}
SOLVED = 195.0
"""CartPole-v0 counts as solved from this mean return over 100 episodes."""


@task(
    "cartpole",
    title="CartPole-v0, MLP with DQN",
    metric="return",
    goal="max",
    data="tasks.cartpole.settings:describe",
    settings=CARTPOLE,
    profiles=PROFILES,
)
class CartPole(Task):
    """Balance a pole on a cart; the metric is the mean return of the greedy policy, at most 200.

    The EarlyCroP paper does not give its settings for this task; these are our own, chosen for
    the dense network alone. Rewards are scaled by 1 - discount, so that values lie between 0 and
    1. Unscaled values exceed 1, where the Huber loss is linear: it almost ignores the rare falls,
    and the values grow without bound. An epoch is a fixed number of optimizer steps, each with
    one step in every environment. The replay keeps every transition of a run. With a short
    replay, a policy that never fails forgets what a failure is, and some seeds did so late in
    training.
    """

    settings: CartPoleSettings
    outputs_are = "values"

    def __init__(self, settings: CartPoleSettings, data_folder: Path, device: torch.device) -> None:
        super().__init__(settings, data_folder, device)
        self.steps_per_epoch = settings.steps_per_epoch

    def model(self) -> nn.Module:
        """Return the network, which has two hidden layers and returns the value of each action."""
        hidden = self.settings.hidden
        return nn.Sequential(
            nn.Linear(OBSERVATION_SIZE, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, ACTIONS),
        ).to(self.device)

    def stream(self, model: nn.Module, seed: int) -> Experience:
        """Return the agent's experience, warmed up by a random policy."""
        return Experience(model, self.settings, seed, self.device)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the Huber loss of the temporal-difference errors."""
        return F.smooth_l1_loss(*self._values_and_targets(model, batch))

    def scoring_batches(self, seed: int) -> list[Batch]:
        """Return batches of the random policy's transitions, with which every run starts."""
        replay = warm_up(self.settings, seed)
        chosen = scoring_indices(len(replay), self.settings.batch_size, seed)
        return [Batch(to_device(replay.at(indices), self.device), None) for indices in chosen]

    def scoring_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean squared temporal-difference error.

        The Huber loss has no curvature where it is linear, so second-order criteria would score
        those transitions with 0.
        """
        return F.mse_loss(*self._values_and_targets(model, batch))

    def _values_and_targets(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the values of the taken actions, and their targets, (samples,) each."""
        transitions, targets = batch
        if targets is None:
            targets = td_targets(model, transitions, self.settings)
        values: Tensor = model(transitions.observations)
        return values.gather(1, transitions.actions[:, None]).squeeze(1), targets

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Return the mean return of the greedy policy over the episodes of a split.

        Also return its standard deviation over the episodes, and 1 if the task counts as solved,
        else 0.
        """

        @torch.no_grad()
        def greedy(observations: Tensor) -> Tensor:
            values: Tensor = model(observations.to(self.device))
            return values.argmax(dim=1).cpu()

        returns = episode_returns(greedy, evaluation_seeds(split))
        mean = returns.mean().item()
        return {
            "return": mean,
            "return_std": returns.std().item(),
            "solved": float(mean >= SOLVED),
        }

    def baseline(self) -> float:
        """Return the best mean return of always left, always right, and random actions."""
        generator = torch.Generator().manual_seed(derive(0, "cartpole baseline"))
        blind: list[Policy] = [
            lambda observations: torch.zeros(len(observations), dtype=torch.long),
            lambda observations: torch.ones(len(observations), dtype=torch.long),
            lambda observations: torch.randint(ACTIONS, (len(observations),), generator=generator),
        ]
        seeds = evaluation_seeds("test")
        return max(episode_returns(policy, seeds).mean().item() for policy in blind)

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the values of both actions (samples, 2)."""
        values: Tensor = model(batch.transitions.observations)
        return values

    @torch.no_grad()
    def inference(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the greedy actions (samples,)."""
        return self.outputs(model, batch).argmax(dim=1)

    def one_sample(self) -> Batch:
        """Return one transition of a random policy."""
        transitions = warm_up(replace(self.settings, warm_up_transitions=1), seed=0).at(
            torch.tensor([0])
        )
        return Batch(to_device(transitions, self.device), None)


def evaluation_seeds(split: Split) -> list[int]:
    """Return the seeds of a split's episodes, the same for all runs."""
    return [derive(0, f"cartpole {split}", episode) for episode in range(EPISODES[split])]
