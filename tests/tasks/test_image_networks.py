"""The networks of image classification: their published sizes, and what they do with an image."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.prunable import prunable_weights
from harness.registry import Registry
from pruners.channels.tracing import trace_channels
from tasks.images.networks import NEGATIVE_SLOPE, NETWORKS


def on_meta(name: str, classes: int) -> nn.Module:
    with torch.device("meta"):
        return NETWORKS[name](width=64, classes=classes)


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("resnet18", 10, 11_173_962),
        ("resnet18", 100, 11_220_132),
        ("vgg16", 10, 14_728_266),
        ("vgg16", 100, 14_774_436),
        ("resnet18_official", 10, 11_707_978),
        ("vgg16_official", 10, 50_703_946),
        # torchvision's resnext101_32x16d has 194,026,792, of which 2,049,000 are its head.
        ("resnext101_32x16d", 10, 194_026_792 - 2_049_000 + 20_490),
        ("resnext101_32x48d", 10, 828_411_176 - 2_049_000 + 20_490),
    ],
)
def test_the_published_numbers_of_parameters(name: str, classes: int, parameters: int) -> None:
    model = on_meta(name, classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "convolutions", "linear"),
    [
        ("resnet18_official", 11_166_912, {10: 526_848, 100: 549_888, 200: 575_488}),
        ("vgg16_official", 17_069_760, {10: 33_595_392, 100: 33_964_032, 200: 34_373_632}),
    ],
)
def test_the_weights_that_the_official_variants_can_lose(
    name: str, convolutions: int, linear: dict[int, int]
) -> None:
    for classes, of_linear in linear.items():
        weights = prunable_weights(on_meta(name, classes)).values()
        assert sum(w.numel() for w in weights if w.dim() == 4) == convolutions
        assert sum(w.numel() for w in weights if w.dim() == 2) == of_linear


@pytest.mark.parametrize(
    ("name", "channels"), [("resnet18_official", 5_056), ("vgg16_official", 12_928)]
)
def test_the_nodes_of_the_official_variants(name: str, channels: int) -> None:
    """All output channels but the logits, as they count them."""
    weights = list(prunable_weights(on_meta(name, 10)).values())
    assert sum(len(weight) for weight in weights[:-1]) == channels


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("name", NETWORKS)
def test_an_image_of_either_size_gives_a_logit_for_each_class(name: str, size: int) -> None:
    model = on_meta(name, 100)
    assert model(torch.ones(2, 3, size, size, device="meta")).shape == (2, 100)


@pytest.mark.parametrize(
    ("name", "groups"),
    [("resnet18", 12), ("resnet18_official", 13), ("vgg16", 13), ("vgg16_official", 15)],
)
def test_the_channels_that_can_be_removed(name: str, groups: int) -> None:
    """Of ResNet18: the inner ones of 8 blocks and 4 stages; of VGG16 every convolution's."""
    model = NETWORKS[name](width=4, classes=10)
    graph = trace_channels(model, torch.ones(1, 3, 32, 32))
    assert len(graph.groups) == groups


def test_the_official_initialisation_is_orthogonal() -> None:
    torch.manual_seed(0)
    model = NETWORKS["resnet18_official"](width=8, classes=10)
    assert isinstance(model, nn.Sequential)
    linear = model[-1]
    assert isinstance(linear, nn.Linear)
    last = linear.weight.detach()
    gain_squared = 2 / (1 + NEGATIVE_SLOPE**2)
    torch.testing.assert_close(last @ last.T, gain_squared * torch.eye(10))
    assert linear.bias.detach().abs().max() <= 32**-0.5


def test_the_choices_of_the_tasks_are_the_networks_there_are() -> None:
    for task in ("cifar10", "cifar100", "tiny_imagenet"):
        choices = Registry().find("task", task).arguments["choices"]
        assert set(choices["model"]) == {*NETWORKS, "vit"}
