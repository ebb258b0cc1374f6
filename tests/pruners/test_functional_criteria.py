"""Criteria at other weights: numbers by hand, NumPy and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.scoring import Criterion, Scores
from pruners import criteria
from pruners.distributions import number_to_keep
from pruners.functional_criteria import NTKSAP, Force, ProsPr
from pruners.schedules import geometric_steps
from pruners.weights import Weights
from tests.helpers.regression import Batch, batch, line, weights_of

Array = NDArray[np.float64]


def random_line(seed: int, weights: int = 12, samples: int = 6) -> tuple[Array, list[Batch]]:
    """Return weights, and two batches of samples."""
    draw = np.random.default_rng(seed)
    shapes = (samples, weights), (samples, 1)
    batches = []
    for _ in range(2):
        inputs, targets = (torch.tensor(draw.normal(size=shape)) for shape in shapes)
        batches.append((inputs, targets))
    return draw.normal(size=weights), batches


def slope(weights: Array, batches: list[Batch]) -> Array:
    """Return the gradient of half the summed squared errors of a line."""
    total = np.zeros_like(weights)
    for inputs, targets in batches:
        x, y = inputs.numpy(), targets.numpy()[:, 0]
        total += x.T @ (x @ weights - y)
    return total


def perceptron() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def regression() -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(5, 3, generator=generator, dtype=torch.float64),
            torch.randn(5, 2, generator=generator, dtype=torch.float64),
        )
        for _ in range(2)
    ]


def only(scores: Scores) -> list[float]:
    (score,) = scores.values()
    listed: list[float] = score.flatten().tolist()
    return listed


# FORCE

RETURNING = batch([[0, 0, -1, 2], [2, 0, 1, 0]], [2, 1])
"""At weights of 1 the errors are -1 and 2, so that the gradient is (4, 0, 3, -2)."""


def test_a_weight_that_one_round_masks_may_win_the_next() -> None:
    scoring = weights_of(line([1, 1, 1, 1]), [RETURNING])
    assert only(Force(0.75, rounds=1)(scoring)) == [4, 0, 3, 2]
    # The first and the third stay. Then the errors are -3 and 2, and the gradient (4, 0, 5, -6).
    assert only(Force(0.75, rounds=2)(scoring)) == [4, 0, 5, 6]


def test_iterative_snip_does_not_take_it_back() -> None:
    scoring = weights_of(line([1, 0, 1, 0]), [RETURNING])
    assert only(criteria.snip(scoring)) == [4, 0, 5, 0]


@given(st.integers(0, 99), st.integers(1, 6), st.sampled_from([0.5, 0.75, 0.9]))
@settings(max_examples=30, deadline=None)
def test_force_is_its_formula(seed: int, rounds: int, sparsity: float) -> None:
    weights, batches = random_line(seed)
    found = Force(sparsity, rounds)(weights_of(line(weights.tolist()), batches))

    scores = abs(weights * slope(weights, batches))
    for target in geometric_steps(sparsity, rounds)[:-1]:
        mask = np.zeros_like(weights)
        mask[np.argsort(-scores, stable=True)[: number_to_keep(len(weights), target)]] = 1
        scores = abs(weights * slope(mask * weights, batches))
    np.testing.assert_allclose(only(found), scores, rtol=1e-9)


def test_one_round_of_force_is_snip() -> None:
    scoring = weights_of(perceptron(), regression())
    for name, score in Force(0.9, rounds=1)(scoring).items():
        torch.testing.assert_close(score, criteria.snip(scoring)[name], rtol=1e-12, atol=0)


# ProsPr


def test_prospr_of_one_weight_by_hand() -> None:
    # The loss v^2 / 2 has the slope v. A step of 1/2 leads from 2 to 1, where the slope is 1.
    # Half of a change of v arrives there: the score is |2 * 1/2 * 1|.
    scoring = weights_of(line([2]), [batch([[1]], [0])])
    assert only(ProsPr(steps=1, learning_rate=0.5)(scoring)) == [1]
    # Of the second step, a quarter of the change arrives, and the slope is 1/2.
    assert only(ProsPr(steps=2, learning_rate=0.5)(scoring)) == [0.25]


@given(st.integers(0, 99), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_prospr_is_its_formula_on_a_quadratic_loss(seed: int, steps: int) -> None:
    weights, batches = random_line(seed)
    rate = 0.03
    found = ProsPr(steps, rate)(weights_of(line(weights.tolist()), batches))

    trained, arrives = weights, np.eye(len(weights))
    for step in range(steps):
        inputs = batches[step % 2][0].numpy()
        trained = trained - rate * slope(trained, [batches[step % 2]])
        arrives = (np.eye(len(weights)) - rate * inputs.T @ inputs) @ arrives
    expected = abs(weights * (arrives.T @ slope(trained, batches)))
    np.testing.assert_allclose(only(found), expected, rtol=1e-8, atol=1e-10)


def test_without_steps_prospr_is_snip() -> None:
    scoring = weights_of(perceptron(), regression())
    for name, score in ProsPr(steps=0)(scoring).items():
        assert torch.equal(score, criteria.snip(scoring)[name])


def test_prospr_is_the_slope_of_the_loss_after_training_in_the_mask() -> None:
    model, batches = perceptron(), regression()
    scores = ProsPr(steps=3, learning_rate=0.05)(weights_of(model, batches))
    for name, score in scores.items():
        for place in [(0, 0), (1, 2)]:
            above, below = (trained_loss(model, batches, name, place, s * 1e-5) for s in (1, -1))
            assert abs(above - below) / 2e-5 == pytest.approx(score[place].item(), rel=1e-5)


def trained_loss(
    model: nn.Module, batches: list[Batch], name: str, place: tuple[int, int], more: float
) -> float:
    """Return the loss after three steps of SGD, if a weight starts at ``1 + more`` times itself."""
    torch.manual_seed(0)
    copy = perceptron()
    copy.load_state_dict(model.state_dict())
    with torch.no_grad():
        copy.get_parameter(name)[place] *= 1 + more
    optimiser = torch.optim.SGD(copy.parameters(), 0.05)
    for step in range(3):
        optimiser.zero_grad()
        loss_of(copy, batches[step % 2]).backward()
        optimiser.step()
    return sum(loss_of(copy, each).item() for each in batches)


def loss_of(model: nn.Module, samples: Batch) -> Tensor:
    errors: Tensor = model(samples[0]) - samples[1]
    return errors.square().sum() / 2


# NTK-SAP


def tangent_scores(
    model: nn.Module, batches: list[Batch], seed: int = 0, epsilon: float = 0.01
) -> Scores:
    scoring = weights_of(model, batches, new=perceptron_anew)
    scoring.generator.manual_seed(seed)
    return NTKSAP(epsilon)(scoring)


def perceptron_anew() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def test_ntk_sap_of_a_linear_network_by_hand() -> None:
    # R = (epsilon sum m z x)^2, whose slope in a mask is 2 epsilon^2 (sum z x) z x.
    scoring = weights_of(line([1, 1]), [batch([[9, 9]], [9])], new=lambda: line([5, 6]))
    generator = torch.Generator().manual_seed(0)
    network = scoring.functional()
    assert network.initial(generator)["weight"].tolist() == [[5, 6]]
    x = network.noise(generator)[0]
    z = torch.randn(1, 2, generator=generator).double()
    expected = (2 * 0.5**2 * (z * x).sum() * z * x).abs()
    torch.testing.assert_close(NTKSAP(0.5)(scoring)["weight"], expected, rtol=1e-9, atol=0)


def test_ntk_sap_is_the_slope_of_its_objective() -> None:
    model, batches = perceptron(), regression()
    scores = tangent_scores(model, batches)

    generator = torch.Generator().manual_seed(0)
    network = weights_of(model, batches, new=perceptron_anew).functional()
    drawn, inputs = network.initial(generator), network.noise(generator)[0]
    z = {n: torch.randn(each.shape, generator=generator).double() for n, each in scores.items()}

    @torch.no_grad()
    def objective(masks: Scores) -> float:
        outputs = []
        for epsilon in (0, 0.01):
            copy = perceptron_anew()
            copy.load_state_dict(
                drawn | {n: m * (drawn[n] + epsilon * z[n]) for n, m in masks.items()}
            )
            outputs.append(copy(inputs))
        return float((outputs[0] - outputs[1]).square().sum())

    for name, score in scores.items():
        for place in [(0, 0), (1, 2)]:
            values = []
            for more in (1e-4, -1e-4):
                masks = {n: torch.ones_like(each) for n, each in scores.items()}
                masks[name][place] += more
                values.append(objective(masks))
            assert abs(values[0] - values[1]) / 2e-4 == pytest.approx(score[place].item(), rel=1e-5)


def test_ntk_sap_needs_neither_the_data_nor_the_weights() -> None:
    model, batches = perceptron(), regression()
    scores = tangent_scores(model, batches)
    with torch.no_grad():
        model.get_parameter("0.weight").zero_()
    others = [(7 * inputs, targets + 1) for inputs, targets in batches]
    again = tangent_scores(model, others)
    assert all(torch.equal(scores[name], again[name]) for name in scores)


def test_every_pruning_of_ntk_sap_draws_another_network() -> None:
    first, second = (tangent_scores(perceptron(), regression(), seed) for seed in (0, 1))
    assert not any(torch.equal(first[name], second[name]) for name in first)


def test_small_perturbations_measure_the_trace_of_the_tangent_kernel() -> None:
    # R / epsilon^2 tends to a limit, so its slopes do.
    small, smaller = (
        tangent_scores(perceptron(), regression(), epsilon=epsilon) for epsilon in (1e-4, 1e-5)
    )
    for name in small:
        assert (100 * smaller[name] - small[name]).norm() < 1e-2 * small[name].norm()


def embedding() -> nn.Module:
    return nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2))


def test_ntk_sap_takes_the_words_of_a_scoring_batch() -> None:
    words = torch.tensor([[1, 2], [3, 0]])
    scores = NTKSAP()(weights_of(embedding(), [(words, words)], new=embedding))
    assert scores["0.weight"][:4].all()
    assert not scores["0.weight"][4].any(), "the word does not occur"


# Removed weights


@pytest.mark.parametrize("criterion", [Force(0.5, rounds=1), ProsPr(steps=2, learning_rate=0.1)])
def test_weights_removed_earlier_have_no_part_in_the_scores(criterion: Criterion) -> None:
    weights, batches = random_line(0)
    model = line(weights.tolist())
    units, odd = Weights(model), torch.arange(12).view(1, -1) % 2 == 1
    units.apply(model, None, [], {"weight": odd})
    found = criterion(weights_of(model, batches, units=units))

    alone = line(weights[1::2].tolist())
    expected = criterion(weights_of(alone, [(x[:, 1::2], y) for x, y in batches]))
    torch.testing.assert_close(found["weight"][odd], expected["weight"][0], rtol=1e-9, atol=0)
