from __future__ import annotations

import copy
import hashlib
import io
import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from torch import Tensor, nn

from harness.seeds import derive
from harness.task import Split
from tasks.cartpole.environment import (
    NAME,
    STEP_LIMIT,
    Environments,
    Transitions,
    episode_returns,
)
from tasks.cartpole.replay import Batch, Experience, Replay, td_targets
from tasks.cartpole.settings import CARTPOLE, PROFILES, SEMANTICS, describe
from tasks.cartpole.task import CartPole, evaluation_seeds


def make_task(**overrides: Any) -> CartPole:
    return CartPole(replace(PROFILES["smoke"], **overrides), Path(), torch.device("cpu"))


def make_model(task: CartPole, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return task.model()


def train(task: CartPole, model: nn.Module, stream: Experience, steps: int) -> list[Batch]:
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    batches = []
    for _ in range(steps):
        batches.append(stream.next(model))
        optimiser.zero_grad()
        task.loss(model, batches[-1]).backward()
        optimiser.step()
    return batches


def assert_equal(first: Any, second: Any) -> None:
    """To the last bit, in nested containers."""
    if isinstance(first, Tensor):
        torch.testing.assert_close(first, second, rtol=0, atol=0)
    elif isinstance(first, Mapping):
        assert first.keys() == second.keys()
        for key in first:
            assert_equal(first[key], second[key])
    elif isinstance(first, list | tuple):
        for one, other in zip(first, second, strict=True):
            assert_equal(one, other)
    else:
        assert first == second


class TowardsFall(nn.Module):
    """A hand-written policy: push towards where the pole falls."""

    def forward(self, observations: Tensor) -> Tensor:
        falls_right = observations @ torch.tensor([0.0, 0.0, 1.0, 1.0])
        return torch.stack([-falls_right, falls_right], dim=1)


class AlwaysRight(nn.Module):
    def forward(self, observations: Tensor) -> Tensor:
        return torch.tensor([0.0, 1.0]).expand(len(observations), 2)


class Fixed(nn.Module):
    """Both actions have as value the cart's position times a weight, the second one more."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, observations: Tensor) -> Tensor:
        value = self.weight * observations[:, 0]
        return torch.stack([value, value + 1], dim=1)


def euler_step(observation: list[float], action: int) -> list[float]:
    """The equations of Barto, Sutton and Anderson (1983), frictionless."""
    x, x_dot, theta, theta_dot = observation
    force = 10.0 if action == 1 else -10.0
    total_mass, pole_moment = 1.1, 0.05
    push = (force + pole_moment * theta_dot**2 * math.sin(theta)) / total_mass
    theta_acceleration = (9.8 * math.sin(theta) - math.cos(theta) * push) / (
        0.5 * (4 / 3 - 0.1 * math.cos(theta) ** 2 / total_mass)
    )
    x_acceleration = push - pole_moment * theta_acceleration * math.cos(theta) / total_mass
    return [
        x + 0.02 * x_dot,
        x_dot + 0.02 * x_acceleration,
        theta + 0.02 * theta_dot,
        theta_dot + 0.02 * theta_acceleration,
    ]


# The environments


@pytest.mark.parametrize("policy", [TowardsFall(), AlwaysRight()])
def test_an_environment_goes_through_the_same_episode_as_gymnasiums(policy: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        reference = gymnasium.make("CartPole-v0")
    expected, _ = reference.reset(seed=7)
    environments = Environments([7])
    ended = False
    while not ended:
        assert_equal(environments.observations[0], torch.from_numpy(expected))
        action = policy(environments.observations).argmax(dim=1)
        transitions = environments.step(action)
        expected, reward, terminated, truncated, _ = reference.step(int(action))
        assert_equal(transitions.next_observations[0], torch.from_numpy(expected))
        assert transitions.rewards.item() == reward
        assert transitions.terminated.item() == terminated
        assert transitions.truncated.item() == truncated
        ended = terminated or truncated


def test_the_pole_falls_under_a_constant_push_and_the_time_limit_is_200_steps() -> None:
    falling, balanced = Environments([0]), Environments([0])
    while not (fall := falling.step(torch.tensor([1]))).ended:
        pass
    assert fall.terminated
    assert not fall.truncated
    for step in range(1, 201):
        action = TowardsFall()(balanced.observations).argmax(dim=1)
        transitions = balanced.step(action)
        assert transitions.truncated == (step == 200)
        assert not transitions.terminated


def test_an_ended_episode_is_followed_by_a_new_one_at_once() -> None:
    environments = Environments([3])
    while not environments.step(torch.tensor([0])).ended:
        pass
    assert environments.observations.abs().max() <= 0.05


def test_how_one_environment_fares_does_not_change_the_next_episodes_of_another() -> None:
    def second_start(other_action: int) -> Tensor:
        environments = Environments([1, 2])
        while not environments.step(torch.tensor([other_action, 0])).ended[1]:
            pass
        return environments.observations[1]

    assert_equal(second_start(0), second_start(1))


# The replay


def test_every_remembered_transition_is_a_step_of_the_physics_and_none_is_a_reset() -> None:
    policy = AlwaysRight()
    stream = make_task().stream(policy, seed=0)
    for _ in range(50):
        stream.next(policy)
    ring = stream.state()["replay"]["ring"]
    count = stream.state()["replay"]["added"]
    assert ring["terminated"][:count].sum() > 10
    for index in range(count):
        expected = euler_step(ring["observations"][index].tolist(), int(ring["actions"][index]))
        torch.testing.assert_close(
            ring["next_observations"][index], torch.tensor(expected), rtol=1e-5, atol=1e-6
        )
        assert ring["rewards"][index] == 1


@pytest.mark.parametrize("policy", [TowardsFall(), AlwaysRight()])
def test_every_batch_costs_as_many_environment_steps_whatever_the_policy(
    policy: nn.Module,
) -> None:
    stream = make_task(environments=4, warm_up_transitions=200).stream(policy, seed=0)
    for _ in range(30):
        stream.next(policy)
    assert stream.state()["replay"]["added"] == 200 + 30 * 4


def test_a_full_replay_forgets_the_oldest_transition() -> None:
    replay = Replay(capacity=3)
    replay.add(numbered_transitions(0, 1))
    replay.add(numbered_transitions(2, 3))
    assert len(replay) == 3
    assert replay.at(torch.arange(3)).rewards.tolist() == [3, 1, 2]


def numbered_transitions(*numbers: int) -> Transitions:
    rewards = torch.tensor(numbers, dtype=torch.float32)
    observations = rewards[:, None].expand(-1, 4)
    flags = torch.zeros(len(numbers), dtype=torch.bool)
    return Transitions(observations, flags.long(), rewards, observations, flags, flags)


# Batches, targets and losses


def test_targets_bootstrap_where_time_ran_out_but_not_where_the_pole_fell() -> None:
    # Next positions 10 and 20 are worth 2 * 10 + 1 = 21 and 41 by the target network.
    transitions = Transitions(
        observations=torch.tensor([[1.0, 0, 0, 0], [2.0, 0, 0, 0]]),
        actions=torch.tensor([0, 1]),
        rewards=torch.ones(2),
        next_observations=torch.tensor([[10.0, 0, 0, 0], [20.0, 0, 0, 0]]),
        terminated=torch.tensor([False, True]),
        truncated=torch.tensor([True, False]),
    )
    task = make_task(discount=0.5, reward_scale=0.1)
    targets = td_targets(Fixed(2.0), transitions, task.settings)
    assert_equal(targets, torch.tensor([0.1 + 10.5, 0.1]))

    network = Fixed(2.0)
    # Values of the taken actions: 2 and 5. Errors to these targets: 0.5 and 3.
    batch = Batch(transitions, torch.tensor([2.5, 2.0]))
    assert task.loss(network, batch).item() == pytest.approx((0.5 * 0.5**2 + (3 - 0.5)) / 2)
    assert task.scoring_loss(network, batch).item() == pytest.approx((0.5**2 + 3**2) / 2)
    # Without targets the network gives its own, as constants: errors 2 - 10.6 and 5 - 0.1.
    own = task.scoring_loss(network, Batch(transitions, None))
    assert own.item() == pytest.approx((8.6**2 + 4.9**2) / 2)
    (slope,) = torch.autograd.grad(own, [network.weight])
    assert slope.item() == pytest.approx(-8.6 * 1 + 4.9 * 2)


def test_batches_carry_the_target_networks_targets() -> None:
    task = make_task(target_rate=0.0)
    initial = make_model(task)
    stream = task.stream(initial, seed=0)
    batch = train(task, copy.deepcopy(initial), stream, 5)[-1]
    assert batch.targets is not None
    assert_equal(batch.targets, td_targets(initial, batch.transitions, task.settings))


def test_the_target_network_follows_the_model() -> None:
    task = make_task(target_rate=0.25)
    model = make_model(task)
    stream = task.stream(model, seed=0)
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(1)
    stream.next(moved)
    (target,) = stream.companions
    for parameter, initial in zip(target.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(parameter, initial + 0.25)
        assert not parameter.requires_grad


def test_exploration_falls_linearly_and_stays() -> None:
    task = make_task(exploration_start=1.0, exploration_end=0.2, exploration_steps=4)
    model = make_model(task)
    stream = task.stream(model, seed=0)
    rates = []
    for _ in range(6):
        rates.append(stream.exploration_rate)
        stream.next(model)
    assert rates == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2, 0.2])


# The same for all pruners, and across interruptions


def test_all_models_of_a_seed_start_from_the_same_experience_and_scores() -> None:
    task = make_task()
    first, second = (task.stream(make_model(task, seed), seed=5) for seed in (1, 2))
    assert_equal(first.state()["replay"], second.state()["replay"])
    assert_equal(first.state()["environments"], second.state()["environments"])
    assert_equal(first.state()["exploration"], second.state()["exploration"])
    other = task.stream(make_model(task), seed=6)
    assert not torch.equal(
        first.state()["replay"]["ring"]["actions"], other.state()["replay"]["ring"]["actions"]
    )


def test_scoring_batches_are_drawn_from_the_warm_up_transitions() -> None:
    task = make_task(batch_size=32, warm_up_transitions=200)
    batches = task.scoring_batches(seed=5)
    ring = task.stream(make_model(task), seed=5).state()["replay"]["ring"]
    warm = {tuple(row) for row in ring["observations"][:200].tolist()}
    drawn = [tuple(row) for batch in batches for row in batch.transitions.observations.tolist()]
    assert len(batches) == 5
    assert len(drawn) == len(set(drawn)) == 160
    assert set(drawn) <= warm
    assert_equal(batches, task.scoring_batches(seed=5))


def test_a_restored_stream_goes_on_to_the_last_bit() -> None:
    task = make_task(exploration_steps=60, replay_capacity=250)
    model = make_model(task)
    stream = task.stream(model, seed=0)
    train(task, model, stream, 30)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "stream": stream.state()}, file)
    expected = train(task, model, stream, 60)

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = make_model(task, seed=1)
    other = task.stream(resumed, seed=9)
    resumed.load_state_dict(saved["model"])
    other.restore(saved["stream"])
    assert_equal(train(task, resumed, other, 60), expected)
    assert_equal(resumed.state_dict(), model.state_dict())
    assert_equal(other.state(), stream.state())


def test_a_state_stays_as_it_was_when_the_stream_goes_on() -> None:
    task = make_task()
    model = make_model(task)
    stream = task.stream(model, seed=0)
    state = stream.state()
    before = copy.deepcopy(state)
    train(task, model, stream, 30)
    stream.restore(state)
    train(task, model, stream, 30)
    assert_equal(state, before)


# Evaluation


@pytest.mark.parametrize(("split", "episodes"), [("validation", 20), ("test", 100)])
def test_evaluation_runs_its_episodes_to_the_end(split: Split, episodes: int) -> None:
    assert len(evaluation_seeds(split)) == episodes
    perfect = make_task().evaluate(TowardsFall(), split)
    assert perfect == {"return": 200, "return_std": 0, "solved": 1}
    constant = make_task().evaluate(AlwaysRight(), split)
    assert 8 < constant["return"] < 11
    assert constant["solved"] == 0


def test_a_return_counts_one_episode_only() -> None:
    def always_right(observations: Tensor) -> Tensor:
        return torch.ones(len(observations), dtype=torch.long)

    together = episode_returns(always_right, [1, 2, 3])
    alone = torch.cat([episode_returns(always_right, [seed]) for seed in (1, 2, 3)])
    assert_equal(together, alone)


def test_no_two_purposes_share_an_environment_seed() -> None:
    validation, test = set(evaluation_seeds("validation")), set(evaluation_seeds("test"))
    training = {
        derive(seed, purpose, index)
        for seed in range(20)
        for purpose in ("environment", "warm-up environment")
        for index in range(8)
    }
    assert len(validation | test | training) == 20 + 100 + 320


def test_the_baseline_is_the_coins_return() -> None:
    assert 15 < make_task().baseline() < 30


# The network and its description


def test_the_network_has_17410_parameters_and_a_value_for_each_action() -> None:
    task = make_task()
    model = make_model(task)
    assert sum(parameter.numel() for parameter in model.parameters()) == 17410
    batch = task.scoring_batches(seed=0)[0]
    values = task.outputs(model, batch)
    assert values.shape == (32, 2)
    assert_equal(task.inference(model, batch), (values[:, 1] > values[:, 0]).long())
    assert task.outputs(model, task.one_sample()).shape == (1, 2)


def test_the_flow_is_the_summed_value_of_an_observation_of_ones() -> None:
    task = make_task()
    model = make_model(task).double()
    first, second, third = (layer for layer in model.modules() if isinstance(layer, nn.Linear))
    hidden = (second.weight @ (first.weight.sum(dim=1) + first.bias).relu() + second.bias).relu()
    expected = (third.weight @ hidden + third.bias).sum()
    torch.testing.assert_close(task.flow(model), expected)


def test_the_data_are_described_as_the_simulator_behaves() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is a newer version
        simulator = gymnasium.make(NAME)
    physics: Any = simulator.unwrapped
    degrees = math.degrees(physics.theta_threshold_radians)
    said = f"Euler steps of {physics.tau:g} s, reward 1 per step, "
    said += f"terminated beyond {physics.x_threshold:g} m or {degrees:g} degrees, "
    said += f"truncated after {STEP_LIMIT} steps"
    assert physics.kinematics_integrator == "euler"
    assert f"{NAME}: {said}" == SEMANTICS
    description = describe("embedded", CARTPOLE, Path())
    assert (description.source, description.name) == ("synthetic", f"gymnasium {NAME}")
    assert description.sha256 == hashlib.sha256(SEMANTICS.encode()).hexdigest()
