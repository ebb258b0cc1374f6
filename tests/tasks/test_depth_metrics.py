"""The losses and measures of depth prediction, against numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tasks.nyu.errors import averaged, berhu, image_sums, mean_squared_error, pooled

Loss = Callable[[Tensor, Tensor], Tensor]


def maps(*rows: list[float]) -> Tensor:
    """Return images of one row each."""
    return torch.tensor(rows)[:, None, :]


# Losses


def test_berhu_is_linear_up_to_a_fifth_of_the_largest_error_and_quadratic_beyond() -> None:
    truth = torch.full((3,), 5.0)
    predicted = torch.tensor([5.5, 4.0, 10.0])  # errors 0.5, 1 and 5: c is 1
    assert float(berhu(predicted, truth)) == pytest.approx((0.5 + 1 + (25 + 1) / 2) / 3)


def test_the_largest_error_counts_whatever_its_sign() -> None:
    truth = torch.full((2,), 9.0)
    too_near = berhu(torch.tensor([4.0, 7.0]), truth)  # errors -5 and -2: c is 1
    assert float(too_near) == pytest.approx(((25 + 1) / 2 + (4 + 1) / 2) / 2)


def test_unknown_depths_change_neither_the_mean_nor_the_threshold() -> None:
    truth, predicted = torch.tensor([2.0, 4.0]), torch.tensor([3.0, 4.1])
    with_unknown = torch.tensor([2.0, 4.0, 0.0]), torch.tensor([3.0, 4.1, 99.0])
    for loss in (berhu, mean_squared_error):
        assert loss(with_unknown[1], with_unknown[0]) == loss(predicted, truth)


@pytest.mark.parametrize("unknown", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_an_unknown_depth_has_no_effect_however_it_is_marked(unknown: float) -> None:
    predicted = torch.tensor([[[2.0, 3.0, 4.0]]], requires_grad=True)
    truth = torch.tensor([[[2.5, unknown, 8.0]]])
    for loss in (berhu, mean_squared_error):
        value = loss(predicted, truth)
        assert value == loss(predicted[..., [0, 2]], truth[..., [0, 2]])
        (gradient,) = torch.autograd.grad(value, predicted)
        assert gradient.isfinite().all()
        assert gradient[0, 0, 1] == 0
    both = image_sums(predicted.detach(), truth)
    assert both.equal(image_sums(predicted.detach()[..., [0, 2]], truth[..., [0, 2]]))


def test_without_a_known_depth_there_is_no_number() -> None:
    sums = image_sums(maps([1.0, 2.0]), maps([0.0, math.nan]))
    for measures in (pooled(sums), averaged(sums)):
        assert all(math.isnan(value) for value in measures.values())


def test_the_threshold_is_a_constant_for_the_gradient() -> None:
    predicted = torch.tensor([10.0, 2.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(berhu(predicted, torch.tensor([5.0, 1.9])), predicted)
    assert gradient.tolist() == pytest.approx([5 / 1 / 2, 1 / 2])  # x / c, and the sign


@pytest.mark.parametrize("loss", [berhu, mean_squared_error])
@pytest.mark.parametrize("truth", [2.0, 0.0])
def test_without_errors_or_without_depths_loss_and_gradient_are_zero(
    loss: Loss, truth: float
) -> None:
    predicted = torch.full((4,), 2.0, requires_grad=True)
    value = loss(predicted, torch.full((4,), truth))
    (gradient,) = torch.autograd.grad(value, predicted)
    assert float(value.detach()) == 0
    assert gradient.tolist() == [0, 0, 0, 0]


def test_small_errors_have_no_curvature_under_berhu_but_under_the_squared_error() -> None:
    """Which is why scores use the latter: second derivatives are all that CroP sees."""
    truth = torch.tensor([5.0, 5.0, 5.0], dtype=torch.float64)
    predicted = torch.tensor([5.1, 4.9, 6.0], dtype=torch.float64)  # c is 0.2

    def curvature(loss: Loss) -> list[float]:
        hessian = torch.autograd.functional.hessian(lambda p: loss(p, truth), predicted)
        diagonal: list[float] = hessian.diagonal().tolist()
        return diagonal

    assert curvature(berhu) == pytest.approx([0, 0, 1 / 0.2 / 3])
    assert curvature(mean_squared_error) == pytest.approx([2 / 3] * 3)


# Measures


def test_the_measures_of_four_pixels() -> None:
    truth = maps([1.0, 2.0, 4.0, 1.0])
    predicted = maps([1.0, 2.6, 2.0, 10.0])  # ratios 1, 1.3, 2 and 10
    found = pooled(image_sums(predicted, truth))
    logarithms = [0, math.log10(1.3), math.log10(2), 1]
    assert found == pytest.approx(
        {
            "rmse": math.sqrt((0 + 0.36 + 4 + 81) / 4),
            "rel": (0 + 0.3 + 0.5 + 9) / 4,
            "log10": sum(logarithms) / 4,
            "delta1": 25.0,
            "delta2": 50.0,  # 1.5625
            "delta3": 50.0,  # 1.953125
        },
        rel=1e-6,
    )


def test_a_ratio_of_exactly_the_threshold_is_not_within_it() -> None:
    assert pooled(image_sums(maps([5.0]), maps([4.0])))["delta1"] == 0


def test_the_rmse_of_all_pixels_is_not_the_mean_of_the_images() -> None:
    sums = image_sums(maps([2.0, 2.0], [4.0, 9.0]), maps([1.0, 1.0], [1.0, 0.0]))
    assert pooled(sums)["rmse"] == pytest.approx(math.sqrt((1 + 1 + 9) / 3))
    assert averaged(sums)["rmse"] == pytest.approx((1 + 3) / 2)
    assert pooled(sums)["rel"] == pytest.approx((1 + 1 + 3) / 3)
    assert averaged(sums)["rel"] == pytest.approx((1 + 3) / 2)


def test_images_without_any_depth_do_not_count() -> None:
    with_empty = image_sums(maps([2.0, 3.0], [5.0, 5.0]), maps([1.0, 1.0], [0.0, 0.0]))
    without = image_sums(maps([2.0, 3.0]), maps([1.0, 1.0]))
    assert pooled(with_empty) == pooled(without)
    assert averaged(with_empty) == averaged(without)


@pytest.mark.parametrize("nonsense", [0.0, -3.0])
def test_depths_that_cannot_be_count_as_a_millimetre(nonsense: float) -> None:
    found = pooled(image_sums(maps([nonsense]), maps([1.0])))
    assert found["log10"] == pytest.approx(3)
    assert found["rmse"] == pytest.approx(0.999)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 2**32))
def test_the_batches_do_not_matter(sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(sum(sizes), 2, 3, generator=generator) + 0.5
    predicted = torch.rand(truth.shape, generator=generator) + 0.5
    whole = image_sums(predicted, truth)
    pieces = torch.cat(
        [image_sums(p, t) for p, t in zip(predicted.split(sizes), truth.split(sizes), strict=True)]
    )
    assert torch.equal(whole, pieces)
