"""The stereo network: its published sizes, its cost volume, and that channels can be cut."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from pruners.channels import shrink, trace_channels, verify_shrink
from tasks.psmnet.model import NETWORKS, PSMNet, StackedHourglass, cost_volume


@pytest.mark.parametrize(
    ("name", "parameters"), [("basic", 3_672_896), ("stacked_hourglass", 5_224_768)]
)
def test_the_published_networks_have_the_published_sizes(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = NETWORKS[name](width=32, max_disparity=192, pooling=64)
        images = torch.empty(1, 3, 256, 512)
        assert model.features(images).shape == (1, 32, 64, 128)
        assert model(images, images).shape == (1, 256, 512)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def published_cost_volume(left: Tensor, right: Tensor, disparities: int) -> Tensor:
    """Written slice by slice, as in the authors' code."""
    pairs, channels, height, width = left.shape
    cost = left.new_zeros(pairs, 2 * channels, disparities, height, width)
    for d in range(disparities):
        cost[:, :channels, d, :, d:] = left[..., d:]
        cost[:, channels:, d, :, d:] = right[..., : width - d]
    return cost


def test_the_cost_volume_is_the_published_one() -> None:
    left, right = torch.randn(2, 2, 3, 4, 9)
    assert torch.equal(cost_volume(left, right, 5), published_cost_volume(left, right, 5))


def test_the_cost_volume_puts_partners_beside_each_other() -> None:
    right = torch.arange(1.0, 7.0).view(1, 1, 1, 6)
    left = right.roll(2, dims=-1)  # everything is two pixels further right
    of_left, of_right = cost_volume(left, right, 4)[0, :, 2, 0]
    assert of_left.tolist() == of_right.tolist() == [0, 0, 1, 2, 3, 4]


def small(name: str, dtype: torch.dtype = torch.float32) -> PSMNet:
    torch.manual_seed(0)
    return NETWORKS[name](width=4, max_disparity=16, pooling=8).to(dtype)


def pair(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    left, right = torch.randn(2, 1, 3, 32, 32, dtype=dtype)
    return left, right


def test_equal_costs_give_the_mean_disparity() -> None:
    model = small("basic")
    disparities = model._regress(torch.zeros(1, 1, 4, 2, 2), (8, 8))
    torch.testing.assert_close(disparities, torch.full((1, 8, 8), 7.5))


def test_the_disparity_of_the_largest_cost_is_chosen() -> None:
    costs = torch.zeros(1, 1, 4, 2, 2)
    costs[:, :, 0] = 1000
    assert small("basic")._regress(costs, (8, 8)).max() < 0.1
    assert small("basic")._regress(costs.flip(2), (8, 8)).min() > 14.9


def test_the_hourglasses_have_three_outputs_of_which_the_last_counts() -> None:
    model = small("stacked_hourglass").eval()
    with torch.no_grad():
        outputs = model.disparities(*pair())
        assert len(outputs) == 3
        torch.manual_seed(1)
        left, right = pair()
        assert torch.equal(model(left, right), model.disparities(left, right)[-1])
    assert not torch.equal(outputs[0], outputs[2])


def test_each_output_adds_to_the_one_before() -> None:
    model = small("stacked_hourglass").eval()
    assert isinstance(model, StackedHourglass)
    with torch.no_grad():
        last = model.classifiers[2].get_submodule("1")
        assert isinstance(last, nn.Conv3d)
        nn.init.zeros_(last.weight)
        first, second, third = model.costs(*pair())
    assert torch.equal(second, third)
    assert not torch.equal(first, second)


def test_both_images_are_looked_at() -> None:
    model = small("basic").eval()
    left, right = (image.requires_grad_() for image in pair())
    model(left, right).sum().backward()
    for image in (left, right):
        assert image.grad is not None
        assert bool(image.grad.any())


@pytest.mark.parametrize(("name", "groups"), [("basic", 43), ("stacked_hourglass", 52)])
def test_channels_can_be_cut(name: str, groups: int) -> None:
    # Of the 36 in two dimensions, 25 are those between the two convolutions of a block.
    model, inputs = small(name, torch.float64).eval(), pair(torch.float64)
    graph = trace_channels(model, inputs)
    assert len(graph.groups) == groups
    keep = {group.name: torch.arange(group.size // 2) for group in graph.groups}
    smaller = copy.deepcopy(model)
    shrink(smaller, graph, keep)
    verify_shrink(model, graph, keep, smaller, inputs, tolerance=1e-10)
    with torch.no_grad():
        assert not torch.allclose(model(*inputs), smaller(*inputs))
