"""The vision transformer of the tasks on images: its size, and what it sees of an image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harness.prunable import prunable_weights
from harness.scoring import WithoutBarriers, magnitudes, scoring_mode
from tasks.digits.settings import PROFILES as OF_DIGITS
from tasks.digits.task import Digits
from tasks.images import settings as photographs
from tasks.images.task import Cifar10, Cifar100, TinyImageNet
from tasks.images.vit import VisionTransformer, vit
from tasks.mnist import settings as grey
from tasks.mnist.task import FashionMnist, Mnist

CPU = torch.device("cpu")


def digits_task() -> Digits:
    return Digits(replace(OF_DIGITS["smoke"], model="vit"), Path(), CPU)


def test_with_64_and_seven_blocks_it_is_as_wide_and_deep_as_a_compact_transformer() -> None:
    """Seven blocks of width 256, whose feed-forward layers have 512 hidden units."""
    with torch.device("meta"):
        model = vit(64, 10, side=32, blocks=7)
    stem = 3 * 128 * 9 + 2 * 128 + 128 * 256 * 9 + 2 * 256 + 256**2 + 256
    blocks = 7 * (4 * 256**2 + 2 * 256 * 512 + 4 * 256)
    rest = 64 * 256 + 2 * 256 + 256 * 10 + 10
    assert sum(p.numel() for p in model.parameters()) == stem + blocks + rest


@pytest.mark.parametrize(
    ("side", "strides", "tokens"), [(32, (2, 2), 64), (28, (2, 2), 49), (8, (1, 2), 16)]
)
def test_a_token_stands_for_a_few_pixels(side: int, strides: tuple[int, int], tokens: int) -> None:
    model = vit(2, 5, side=side, blocks=1, channels=1, strides=strides)
    assert model.positions().shape == (tokens, 8)
    assert model(torch.randn(3, 1, side, side)).shape == (3, 5)


def test_the_places_of_the_parts_of_an_image_matter() -> None:
    """Without positions, exchanging far parts of an image would only exchange tokens."""
    torch.manual_seed(0)
    model: Any = vit(4, 5, side=16, blocks=2, channels=1).double().eval()
    model.stem = nn.Conv2d(1, 16, 4, 4).double()
    image = torch.randn(1, 1, 16, 16, dtype=torch.double)
    turned = image.roll(8, dims=3)
    assert (model(image) - model(turned)).abs().max() > 1e-6
    nn.init.zeros_(model.positions.vectors)
    torch.testing.assert_close(model(image), model(turned))


@pytest.mark.parametrize("task", [Cifar10, Cifar100, TinyImageNet])
def test_photographs_can_be_classified_by_it(task: type[Cifar10]) -> None:
    profiles = {
        Cifar10: photographs.CIFAR10_PROFILES,
        Cifar100: photographs.CIFAR100_PROFILES,
        TinyImageNet: photographs.TINY_IMAGENET_PROFILES,
    }[task]
    built = task(replace(profiles["smoke"], model="vit"), Path(), CPU)
    model = built.model()
    assert isinstance(model, VisionTransformer)
    assert len(model.blocks) == 2
    images, _ = built.scoring_batches(0)[0]
    assert model(images).shape == (len(images), task.data_set.classes)


@pytest.mark.parametrize("task", [Mnist, FashionMnist])
def test_grey_images_can_be_classified_by_it(task: type[Mnist]) -> None:
    built = task(replace(grey.PROFILES["smoke"], model="vit"), Path(), CPU)
    model = built.model()
    assert isinstance(model, VisionTransformer)
    assert model.norm.weight.shape == (4 * 16,)
    images, _ = built.scoring_batches(0)[0]
    assert model(images).shape == (len(images), 10)


def test_it_learns_digits() -> None:
    task = digits_task()
    torch.manual_seed(0)
    model = task.model()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    stream = task.stream(model, 0)
    for _ in range(40):
        optimizer.zero_grad()
        task.loss(model, stream.next(model)).backward()
        optimizer.step()
    with torch.no_grad():
        assert task.evaluate(model.eval(), "validation")["accuracy"] > 60


def test_flow_reaches_every_weight() -> None:
    task = digits_task()
    model = task.model()
    weights = prunable_weights(model)
    with scoring_mode(model, batch_statistics=False), magnitudes(model, {}), WithoutBarriers():
        gradients = torch.autograd.grad(task.flow(model), [*weights.values()])
    for name, gradient in zip(weights, gradients, strict=True):
        assert (gradient > 0).all(), name
