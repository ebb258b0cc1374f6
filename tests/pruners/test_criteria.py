"""Criteria against closed forms, explicit Hessians and finite differences."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd.functional import hessian, jacobian

from harness.scoring import Scoring, magnitudes
from pruners import criteria

Loss = Callable[[], Tensor]


def scoring_of(
    variables: Mapping[str, Tensor],
    losses: Sequence[Loss],
    alive: Mapping[str, Tensor] | None = None,
) -> Scoring:
    ones = {name: torch.ones_like(v, dtype=torch.bool) for name, v in variables.items()}
    generator = torch.Generator().manual_seed(0)
    return Scoring(variables, alive or ones, losses, no_flow, generator)


def no_flow() -> contextlib.AbstractContextManager[Loss]:
    raise AssertionError("only SynFlow needs the network without signs")


class Quadratic:
    """The loss ``v A v / 2 - b v``, with gradient ``A v - b`` and Hessian ``A``."""

    def __init__(self, v: list[float], a: list[list[float]], b: list[float]) -> None:
        self.v = torch.tensor(v, requires_grad=True)
        self.a, self.b = torch.tensor(a), torch.tensor(b)

    def __call__(self) -> Tensor:
        return self.v @ self.a @ self.v / 2 - self.b @ self.v


class SmoothNetwork:
    """Two layers of weights around a tanh, and the losses of two batches of regression."""

    def __init__(self, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(0)
        weights = {"first": torch.randn(4, 3, generator=generator)}
        weights["second"] = torch.randn(2, 4, generator=generator)
        self.variables = {name: w.to(dtype).requires_grad_() for name, w in weights.items()}
        self.batches = [
            (torch.randn(5, 3, generator=generator), torch.randn(5, 2, generator=generator))
            for _ in range(2)
        ]

    def losses(self) -> list[Loss]:
        first, second = self.variables.values()
        return [partial(self._loss, first, second, x, y) for x, y in self.batches]

    def _loss(self, first: Tensor, second: Tensor, x: Tensor, y: Tensor) -> Tensor:
        output = torch.tanh(x.to(first) @ first.T) @ second.T
        return (output - y.to(output)).square().mean()

    def flat(self) -> Tensor:
        """All weights in one vector."""
        return flatten(self.variables)

    def flat_loss(self, flat: Tensor) -> Tensor:
        """The summed loss as a function of that vector."""
        first, second = flat.split([12, 8])
        losses = [self._loss(first.view(4, 3), second.view(2, 4), x, y) for x, y in self.batches]
        return torch.stack(losses).sum()

    def flat_gradient(self, flat: Tensor) -> Tensor:
        gradient: Tensor = jacobian(self.flat_loss, flat)
        return gradient


def flatten(tensors: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors.values()])


def oracle(criterion: str) -> Tensor:
    """The scores by their formula, with the whole Hessian, in double precision."""
    network = SmoothNetwork(torch.float64)
    v = network.flat()
    g = network.flat_gradient(v)
    h: Tensor = hessian(network.flat_loss, v)
    formulas = {
        "magnitude": v.abs(),
        "snip": (v * g).abs(),
        "grasp": v * (h @ g),
        "crop": (v * (h @ g)).abs(),
    }
    return formulas[criterion]


@pytest.mark.parametrize("name", ["magnitude", "snip", "grasp", "crop"])
def test_scores_equal_the_formula_with_the_explicit_hessian(name: str) -> None:
    expected = oracle(name)
    network = SmoothNetwork(torch.float64)
    scores = getattr(criteria, name)(scoring_of(network.variables, network.losses()))
    torch.testing.assert_close(flatten(scores), expected, rtol=1e-6, atol=0)

    network = SmoothNetwork(torch.float32)
    single = flatten(getattr(criteria, name)(scoring_of(network.variables, network.losses())))
    assert (single.double() - expected).norm() <= 1e-6 * expected.norm()


def test_hessian_gradient_is_the_slope_of_half_the_squared_gradient_norm() -> None:
    network = SmoothNetwork(torch.float64)
    product = criteria.hessian_gradient(scoring_of(network.variables, network.losses()))
    v, step = network.flat(), 1e-5
    for index, expected in enumerate(flatten(product)):
        nudge = torch.zeros_like(v)
        nudge[index] = step
        above, below = (network.flat_gradient(v + sign * nudge) for sign in (1, -1))
        slope = (above.square().sum() - below.square().sum()) / 2 / (2 * step)
        torch.testing.assert_close(slope, expected, rtol=1e-6, atol=1e-9)


def test_hessian_and_gradient_are_each_summed_over_the_batches_first() -> None:
    v = torch.tensor([1.0], requires_grad=True)
    losses = [lambda: v.square().sum() / 2, lambda: v.square().sum()]
    # Gradients 1 and 2, Hessians 1 and 2: the product is (1 + 2) (1 + 2), not 1 * 1 + 2 * 2.
    assert criteria.crop(scoring_of({"v": v}, losses))["v"].tolist() == [9.0]


def test_magnitudes_are_taken_after_the_sum_over_the_batches() -> None:
    v = torch.tensor([2.0], requires_grad=True)
    opposite: list[Loss] = [lambda: v.sum(), lambda: -3 * v.sum()]
    assert criteria.snip(scoring_of({"v": v}, opposite))["v"].tolist() == [4.0]


def test_pruned_weights_have_no_part_in_the_gradient() -> None:
    # g = (2, -4) loses its second entry, so that H g = A (2, 0) = (4, 2).
    loss = Quadratic([1.0, 0.0], a=[[2.0, 1.0], [1.0, 3.0]], b=[0.0, 5.0])
    scoring = scoring_of({"v": loss.v}, [loss], alive={"v": torch.tensor([True, False])})
    assert criteria.hessian_gradient(scoring)["v"].tolist() == [4.0, 2.0]
    assert criteria.crop(scoring)["v"].tolist() == [4.0, 0.0]


def test_grasp_keeps_the_weight_whose_removal_would_lower_the_gradient_flow() -> None:
    loss = Quadratic([1.0, 1.0], a=[[1.0, 0.0], [0.0, 1.0]], b=[0.0, 3.0])

    def flow(v: list[float]) -> float:
        return float((loss.a @ torch.tensor(v) - loss.b).square().sum())

    assert flow([1.0, 1.0]) == 5
    assert flow([0.0, 1.0]) == 4, "without the first, the flow falls: keep it"
    assert flow([1.0, 0.0]) == 10, "without the second, the flow rises: remove it"
    assert criteria.grasp(scoring_of({"v": loss.v}, [loss]))["v"].tolist() == [1.0, -2.0]


def test_shrinking_a_weight_changes_the_gradient_flow_by_minus_twice_its_grasp_score() -> None:
    network = SmoothNetwork(torch.float64)
    scores = flatten(criteria.grasp(scoring_of(network.variables, network.losses())))
    v, step = network.flat(), 1e-5
    for index, score in enumerate(scores):
        part = torch.zeros_like(v)
        part[index] = step
        shrunk, grown = v * (1 - part), v * (1 + part)
        change = network.flat_gradient(shrunk).square().sum()
        change -= network.flat_gradient(grown).square().sum()
        torch.testing.assert_close(change / (2 * step), -2 * score, rtol=1e-6, atol=1e-9)


def test_grasp_keeps_the_same_end_as_the_authors_threshold() -> None:
    """The authors rank ``-v . H g``, remove the largest and keep ``score <= threshold``."""
    authors_scores = torch.tensor([-3.0, -1.0, 0.0, 2.0, 5.0])
    threshold = authors_scores.topk(3).values[-1]
    by_authors = authors_scores <= threshold
    assert by_authors.tolist() == [True, True, True, False, False], "one too many: the threshold's"

    # With H = 1 and g = 1 for each entry, v . H g is v.
    values = -authors_scores
    v = values.clone().requires_grad_()
    scores = criteria.grasp(scoring_of({"v": v}, [lambda: (v - values + 1).square().sum() / 2]))[
        "v"
    ]
    assert scores.topk(2).indices.tolist() == [0, 1]
    assert by_authors[scores.topk(2).indices].all()


def test_synflow_of_a_linear_network_is_the_flow_through_each_weight() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    signed = {
        "0.weight": torch.tensor([[1.0, -2.0], [3.0, -4.0]]),
        "1.weight": torch.tensor([[-1.0, 2.0]]),
    }
    model.load_state_dict(signed)
    variables = dict(model.named_parameters())

    @contextlib.contextmanager
    def without_signs() -> Iterator[Loss]:
        with magnitudes(model, variables):
            yield lambda: model(torch.ones(1, 2, dtype=torch.float64)).sum()

    alive = {name: torch.ones_like(v, dtype=torch.bool) for name, v in variables.items()}
    scores = criteria.synflow(Scoring(variables, alive, [], without_signs, torch.Generator()))

    # The hidden units hold 1 + 2 = 3 and 3 + 4 = 7, and the output is 1 * 3 + 2 * 7 = 17.
    assert scores["0.weight"].tolist() == [[1.0, 2.0], [6.0, 8.0]]
    assert scores["1.weight"].tolist() == [[3.0, 14.0]]
    assert scores["0.weight"].dtype == torch.float64
    torch.testing.assert_close(dict(model.state_dict()), signed)


def test_random_scores_depend_on_the_generator_and_the_names_only() -> None:
    a, b = torch.zeros(1000, requires_grad=True), torch.ones(2, 3, requires_grad=True)
    scores = criteria.random(scoring_of({"a": a, "b": b}, []))
    again = criteria.random(scoring_of({"b": b, "a": a}, []))
    torch.testing.assert_close(scores, again, rtol=0, atol=0)
    assert abs(scores["a"].mean()) < 0.1
    assert abs(scores["a"].std() - 1) < 0.1


def test_scores_carry_no_graph() -> None:
    network = SmoothNetwork(torch.float32)
    for criterion in (criteria.random, criteria.magnitude, criteria.snip, criteria.crop):
        scores = criterion(scoring_of(network.variables, network.losses()))
        assert not any(score.requires_grad for score in scores.values())


def test_a_variable_that_the_loss_does_not_use_scores_zero() -> None:
    used, unused = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    scoring = scoring_of({"used": used, "unused": unused}, [lambda: used.pow(3).sum()])
    assert criteria.crop(scoring)["unused"].tolist() == [0.0, 0.0, 0.0]
    assert criteria.crop(scoring)["used"].tolist() == [18.0, 18.0]


# LAMP


def test_lamp_by_hand() -> None:
    v = torch.tensor([[-2.0, 1.0], [3.0, 0.0]], requires_grad=True)
    # The squares are 4, 1, 9 and 0: 4 / (4 + 9), 1 / (1 + 4 + 9) and 9 / 9.
    expected = torch.tensor([[4 / 13, 1 / 14], [1, 0]], dtype=torch.float64)
    torch.testing.assert_close(criteria.lamp(scoring_of({"v": v}, []))["v"], expected)


def test_lamp_is_its_formula() -> None:
    v = np.random.default_rng(0).normal(size=50)
    expected = [u**2 / (v[abs(v) >= abs(u)] ** 2).sum() for u in v]
    found = criteria.lamp(scoring_of({"v": torch.tensor(v)}, []))["v"]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.floats(0, 1), st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_lamp_leaves_every_layer_a_weight(sizes: list[int], share: float, seed: int) -> None:
    # Layers of very different scales, from which all but one weight each may be removed.
    generator = torch.Generator().manual_seed(seed)
    layers = {
        str(n): 10**n * torch.randn(size, generator=generator) for n, size in enumerate(sizes)
    }
    scores = torch.cat(list(criteria.lamp(scoring_of(layers, [])).values()))
    stay = len(sizes) + int(share * (sum(sizes) - len(sizes)))
    kept = torch.zeros(sum(sizes)).scatter(0, scores.topk(stay).indices, 1).split(sizes)
    assert all(mask.any() for mask in kept)


# HTS


def test_the_estimate_of_a_diagonal_hessian_is_exact() -> None:
    loss = Quadratic([1.0, -2.0], a=[[3.0, 0.0], [0.0, -1.0]], b=[1.0, 1.0])
    scoring = scoring_of({"v": loss.v}, [loss, loss])
    assert criteria.hessian_diagonal(scoring, draws=1)["v"].tolist() == [6, -2]
    # With g = (4, 2), v g = (4, -4) and v^2 h / 2 = (3, -4).
    assert criteria.HTS()(scoring)["v"].tolist() == [7, 8]
    assert criteria.HTS(removal=True)(scoring)["v"].tolist() == [1, 0]


def test_with_the_sign_of_a_removal_it_is_the_change_of_a_quadratic_loss() -> None:
    a, b, v = [[2.0, 0.0, 0.0], [0.0, -5.0, 0.0], [0.0, 0.0, 1.0]], [1.0, 2.0, -3.0], [0.5, 1.5, -2]
    loss = Quadratic(v, a, b)
    changes = []
    for place in range(3):
        without = Quadratic([0 if n == place else each for n, each in enumerate(v)], a, b)
        changes.append((without() - loss()).abs().item())
    assert criteria.HTS(removal=True)(scoring_of({"v": loss.v}, [loss]))["v"].tolist() == changes


def test_the_mean_of_many_draws_is_the_diagonal() -> None:
    network = SmoothNetwork(torch.float64)
    scoring = scoring_of(network.variables, network.losses())
    expected = hessian(network.flat_loss, network.flat()).diagonal()
    few, many = (flatten(criteria.hessian_diagonal(scoring, draws)) for draws in (2, 800))
    assert (many - expected).norm() < 0.05 * expected.norm() < (few - expected).norm()


def test_pruned_weights_have_no_part_in_the_curvature_of_others() -> None:
    loss = Quadratic([1.0, 0.0], a=[[2.0, 9.0], [9.0, 3.0]], b=[0.0, 0.0])
    scoring = scoring_of({"v": loss.v}, [loss], alive={"v": torch.tensor([True, False])})
    assert criteria.hessian_diagonal(scoring, draws=1)["v"].tolist() == [2, 0]
