from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from torch import Size

from harness.units import Scope
from pruners.distributions import (
    erdos_renyi_kernel,
    number_to_keep,
    per_layer,
    uniform_plus,
    whole_network,
)


def test_the_whole_network_has_no_counts_per_layer() -> None:
    scope: Scope = whole_network
    assert scope({"a": Size((10, 10))}, 0.9) is None


def test_every_layer_has_the_same_sparsity() -> None:
    shapes = {"a": Size((10, 10)), "b": Size((20, 10)), "c": Size((10,))}
    assert per_layer(shapes, 0.9) == {"a": 10, "b": 20, "c": 1}


def test_rounding_goes_to_the_largest_remainder() -> None:
    # 12 of 24 stay; the shares are 2.5, 3 and 6.5. Of the two halves the earlier is rounded up.
    shapes = {"a": Size((5,)), "b": Size((6,)), "c": Size((13,))}
    assert per_layer(shapes, 0.5) == {"a": 3, "b": 3, "c": 6}


def test_small_layers_stay_denser_in_an_erdos_renyi_graph() -> None:
    # 110 of 1100 stay, in proportion to the sums of the dimensions, 20 and 110.
    shapes = {"small": Size((10, 10)), "large": Size((10, 100))}
    assert erdos_renyi_kernel(shapes, 0.9) == {"small": 17, "large": 93}


def test_the_dimensions_of_the_kernel_count_too() -> None:
    # 100 of 1000 stay, in proportion to 5 + 5 + 4 + 5 = 19 and 20 + 25 = 45.
    shapes = {"convolution": Size((5, 5, 4, 5)), "linear": Size((20, 25))}
    assert erdos_renyi_kernel(shapes, 0.9) == {"convolution": 30, "linear": 70}


def test_a_layer_that_cannot_hold_its_share_stays_whole() -> None:
    # 505 of 1010 stay. The share of the first is 37, but it has ten; the second keeps 495.
    shapes = {"tiny": Size((5, 2)), "large": Size((10, 100))}
    assert erdos_renyi_kernel(shapes, 0.5) == {"tiny": 10, "large": 495}


def test_a_first_convolution_and_a_fifth_of_the_last_layer_are_exceptions() -> None:
    # 112 of 1118 stay: 18 of the first, 20 of the last in place of 9, and the rest.
    shapes = {"first": Size((2, 1, 3, 3)), "middle": Size((10, 100)), "last": Size((10, 10))}
    assert uniform_plus(shapes, 0.9) == {"first": 18, "last": 20, "middle": 74}


def test_without_a_convolution_the_first_layer_is_no_exception() -> None:
    # 110 of 1100 stay: 20 of the last in place of 10.
    shapes = {"first": Size((10, 100)), "last": Size((10, 10))}
    assert uniform_plus(shapes, 0.9) == {"last": 20, "first": 90}
    assert uniform_plus(shapes, 0.5) == {"first": 500, "last": 50}


def test_where_the_exceptions_do_not_fit_the_first_layer_comes_first() -> None:
    shapes = {"first": Size((2, 1, 3, 3)), "middle": Size((10, 100)), "last": Size((10, 10))}
    assert uniform_plus(shapes, 1 - 25 / 1118) == {"first": 18, "last": 7, "middle": 0}
    assert uniform_plus(shapes, 1 - 5 / 1118) == {"first": 5, "last": 0, "middle": 0}


shapes_of_networks = st.lists(
    st.lists(st.integers(1, 9), min_size=1, max_size=4).map(Size), min_size=1, max_size=6
)


@given(shapes_of_networks, st.floats(0, 1, exclude_max=True))
def test_counts_add_up_exactly_and_fit_into_every_layer(
    shapes: list[Size], sparsity: float
) -> None:
    named = {f"layer{index}": shape for index, shape in enumerate(shapes)}
    total = sum(shape.numel() for shape in shapes)
    for distribution in (per_layer, erdos_renyi_kernel, uniform_plus):
        counts = distribution(named, sparsity)
        assert counts.keys() == named.keys()
        assert sum(counts.values()) == number_to_keep(total, sparsity)
        assert all(0 <= counts[name] <= named[name].numel() for name in named)


def test_the_number_to_keep_is_the_nearest_with_halves_upwards() -> None:
    assert [number_to_keep(10, s) for s in (0, 0.04, 0.06, 0.25, 0.75, 0.99)] == [
        10, 10, 9, 8, 3, 0,
    ]  # fmt: skip
