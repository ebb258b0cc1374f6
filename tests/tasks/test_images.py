"""The tasks of image classification: their batches, their metrics, what they refuse."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harness.errors import RequestError
from harness.network import build_task
from harness.registry import Registry
from harness.spec import plan
from tasks.images.data import Part
from tasks.images.networks import NETWORKS
from tasks.images.task import Photographs

CPU = torch.device("cpu")
NAMES = ("cifar10", "cifar100", "tiny_imagenet")


def build(name: str = "cifar10", profile: str = "smoke", **overrides: str) -> Photographs:
    wanted = plan(Registry(), name, "dense", profile=profile, overrides=overrides)
    task = build_task(wanted, CPU)
    assert isinstance(task, Photographs)
    return task


@pytest.fixture(scope="module")
def task() -> Photographs:
    return build()


class Table(nn.Module):
    """Ranks the classes of each image as it is told, whatever the image."""

    def __init__(self, ranks: list[list[int]], classes: int = 10) -> None:
        super().__init__()
        self.logits = torch.zeros(len(ranks), classes)
        for row, ranked in enumerate(ranks):
            self.logits[row, ranked] = -torch.arange(1.0, len(ranked) + 1)
        self.logits[self.logits == 0] = -100

    def forward(self, images: Tensor) -> Tensor:
        return self.logits[: len(images)]


def test_top1_counts_the_first_answer_and_top5_the_first_five(
    task: Photographs, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = torch.zeros(4, 3, 32, 32), torch.tensor([3, 3, 3, 3])
    monkeypatch.setattr(task, "batches", lambda part: iter([(images, labels)]))
    model = Table([[3, 1, 2, 4, 5], [1, 3, 2, 4, 5], [1, 2, 4, 5, 3], [1, 2, 4, 5, 6, 3]])
    metrics = task.evaluate(model, "test")
    assert metrics["top1_accuracy"] == 25
    assert metrics["top5_accuracy"] == 75


def test_a_constant_answer_is_the_baseline(task: Photographs) -> None:
    assert task.baseline() == pytest.approx(10, abs=5)
    counts = torch.cat([labels for _, labels in task.batches("train")]).bincount()
    answer = Table([[int(counts.argmax())]] * 500)
    assert task.evaluate(answer, "test")["top1_accuracy"] == pytest.approx(task.baseline())


def parts_of(task: Photographs) -> dict[Part, list[bytes]]:
    return {
        part: [image.numpy().tobytes() for images, _ in task.batches(part) for image in images]
        for part in ("train", "validation", "test")
    }


def test_neither_a_seed_nor_the_random_state_decides_the_parts(task: Photographs) -> None:
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        other = build()
        other.stream(nn.Module(), seed).next(nn.Module())
        other.scoring_batches(seed)
        assert parts_of(other) == parts_of(task)


def test_the_parts_are_disjoint(task: Photographs) -> None:
    parts = {part: set(images) for part, images in parts_of(task).items()}
    assert {part: len(images) for part, images in parts.items()} == {
        "train": 135,
        "validation": 15,
        "test": 50,
    }
    assert len(set.union(*parts.values())) == 200


def test_an_epoch_has_every_training_image_once(task: Photographs) -> None:
    stream = build(augmentation="off").stream(nn.Module(), 0)
    seen = [stream.next(nn.Module()) for _ in range(task.steps_per_epoch)]
    images = {image.numpy().tobytes() for batch, _ in seen for image in batch}
    original = {image.numpy().tobytes() for batch, _ in task.batches("train") for image in batch}
    assert images == original


def test_augmentation_goes_on_where_it_was(task: Photographs) -> None:
    stream, again = task.stream(nn.Module(), 0), task.stream(nn.Module(), 0)
    stream.next(nn.Module())
    again.restore(stream.state())
    expected, _ = stream.next(nn.Module())
    assert torch.equal(again.next(nn.Module())[0], expected)


def test_scoring_batches_are_training_images_as_they_are(task: Photographs) -> None:
    original = {image.numpy().tobytes() for batch, _ in task.batches("train") for image in batch}
    scored = [image for images, _ in task.scoring_batches(0) for image in images]
    assert len(scored) == 5 * 64
    assert all(image.numpy().tobytes() in original for image in scored)


def test_black_and_white_are_scaled_as_the_data_set_says(task: Photographs) -> None:
    black, white = (task.prepared(torch.full((1, 3, 32, 32), value)) for value in (0.0, 1.0))
    expected = [-0.4914 / 0.2023, -0.4822 / 0.1994, -0.4465 / 0.2010]
    assert black[0, :, 5, 5].tolist() == pytest.approx(expected)
    assert (white - black)[0, :, 5, 5].tolist() == pytest.approx(
        [1 / 0.2023, 1 / 0.1994, 1 / 0.2010]
    )


@pytest.mark.parametrize(("resolution", "size"), [("32", 32), ("64", 64)])
def test_the_network_sees_the_resolution_that_is_asked_for(resolution: str, size: int) -> None:
    for name in ("cifar10", "tiny_imagenet"):
        task = build(name, resolution=resolution)
        assert task.one_sample()[0].shape == (1, 3, size, size)
        assert task.stream(nn.Module(), 0).next(nn.Module())[0].shape[2:] == (size, size)


@pytest.mark.parametrize("model", [name for name in NETWORKS if "resnext" not in name])
def test_every_network_learns_from_a_batch(model: str) -> None:
    task = build(model=model)
    torch.manual_seed(0)
    network = task.model()
    loss = task.loss(network, task.scoring_batches(0)[0])
    loss.backward()
    assert all(
        p.grad is not None and bool(p.grad.any()) for p in network.parameters() if p.dim() > 1
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_paper_profile_is_the_official_recipe(name: str) -> None:
    arguments = Registry().find("task", name).arguments
    settings = {**arguments["settings"], **arguments["profiles"]["paper"]}
    recipe: dict[str, Any] = {
        "images": "official",
        "model": "resnet18_official",
        "width": 64,
        "epochs": 80,
        "batch_size": 128 if name == "tiny_imagenet" else 256,
        "optimiser": "adam",
        "learning_rate": 2e-3,
        "weight_decay": 5e-5,
        "clip": 10.0,
        "shift": 4,
        "augmentation": True,
    }
    assert {key: settings[key] for key in recipe} == recipe
    assert settings["rotation"] == (15.0 if name == "cifar100" else 0.0)
    assert settings["resolution"] == (32 if name == "cifar100" else 64)


@pytest.mark.parametrize("name", NAMES)
def test_drawings_are_said_to_be_synthetic(name: str) -> None:
    data = plan(Registry(), name, "dense").data
    assert data.source == "synthetic"
    assert data.name.startswith("drawings; not ")
    other = plan(Registry(), name, "dense", overrides={"train_images": "500"}).data
    assert other.sha256 != data.sha256


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        ({"resolution": "16"}, "resolution=16: the networks need at least 32 pixels"),
        ({"batch_size": "67"}, "batch_size=67: leaves one of 135 training images alone"),
        ({"batch_size": "1"}, "batch_size=1: leaves one of 135"),
        ({"model": "resnet81"}, "did you mean 'resnet18'"),
        ({"images": "photographs"}, "unknown value"),
    ],
)
def test_what_cannot_work_is_refused(overrides: dict[str, str], complaint: str) -> None:
    with pytest.raises(RequestError, match=complaint):
        build(**overrides)


def test_official_images_that_are_not_there_are_refused_in_one_line() -> None:
    with pytest.raises(RequestError, match="data fetch cifar10`, or copy") as refusal:
        plan(Registry(), "cifar10", "dense", profile="paper", data_folder=Path("nowhere"))
    assert "\n" not in str(refusal.value)
