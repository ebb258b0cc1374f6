"""The digits: their parts, their augmentation, their network."""

from __future__ import annotations

import gzip
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harness.errors import RequestError
from tasks.digits.settings import DIGITS, PROFILES
from tasks.digits.task import Digits
from tasks.images import digits
from tasks.images.classification import ImageClassification
from tasks.images.data import Part

PARTS: tuple[Part, ...] = ("train", "validation", "test")


def build(profile: str = "smoke", **settings: Any) -> Digits:
    return Digits(replace(PROFILES[profile], **settings), Path(), torch.device("cpu"))


@pytest.fixture(scope="module")
def task() -> Digits:
    return build()


def images_of(task: Digits, part: Part) -> tuple[Tensor, Tensor]:
    """Return all images of a part as the network takes them, and their labels."""
    ((images, labels),) = task.batches(part)
    return images, labels


def test_it_is_a_task_of_image_classification(task: Digits) -> None:
    assert isinstance(task, ImageClassification)


def test_the_parts_are_disjoint_and_are_all_the_images() -> None:
    split = digits.split()
    assert {name: len(numbers) for name, numbers in split.items()} == {
        "train": 898,
        "validation": 180,
        "test": 719,
    }
    assert sorted(np.concatenate(list(split.values()))) == list(range(1797))


def test_the_parts_never_change() -> None:
    # Published results were measured on these.
    assert [digits.split()[name][:3].tolist() for name in PARTS] == [
        [360, 1773, 1482],
        [691, 727, 432],
        [45, 78, 1579],
    ]


def test_neither_a_seed_nor_the_random_state_decides_the_parts() -> None:
    tasks = []
    for seed in (0, 1):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        tasks.append(build())
        tasks[-1].stream(nn.Module(), seed).next(nn.Module())
        tasks[-1].scoring_batches(seed)
    first, second = tasks
    for part in PARTS:
        for one, other in zip(images_of(first, part), images_of(second, part), strict=True):
            assert torch.equal(one, other)


def test_the_images_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    images, labels = digits.read()
    theirs = load_digits()
    assert np.array_equal(images[:, 0], theirs.images)
    assert np.array_equal(labels, theirs.target)


def test_the_data_are_real_and_identified_by_their_file() -> None:
    description = digits.describe("embedded", DIGITS, Path())
    assert description.source == "real"
    assert len(description.sha256) == 64


def test_the_training_images_alone_decide_the_normalisation(task: Digits) -> None:
    images, _ = images_of(task, "train")
    assert float(images.mean()) == pytest.approx(0, abs=1e-5)
    assert float(images.std()) == pytest.approx(1, abs=1e-5)
    raw, _ = digits.read()
    numbers = digits.split()["test"]
    train = torch.from_numpy(raw[digits.split()["train"]])
    expected = (torch.from_numpy(raw[numbers]) - train.mean()) / train.std()
    torch.testing.assert_close(images_of(task, "test")[0], expected, rtol=1e-4, atol=1e-4)


def moved(image: Tensor, down: int, right: int, border: float) -> Tensor:
    """An image of 8x8 moved by whole pixels, the border coming in from outside."""
    result = torch.full_like(image, border)
    for row in range(8):
        for column in range(8):
            if 0 <= row - down < 8 and 0 <= column - right < 8:
                result[row, column] = image[row - down, column - right]
    return result


def test_a_shift_of_one_moves_images_by_at_most_one_pixel_in_all_directions() -> None:
    task, numbers = build(shift=1), torch.arange(100)
    images, labels = task._batch("train", numbers)
    augmented, same_labels = task._training_batch(numbers, torch.Generator().manual_seed(0))
    assert torch.equal(labels, same_labels)
    border = float(images.min())  # a pixel without ink
    places = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    seen = set()
    for image, result in zip(images[:, 0], augmented[:, 0], strict=True):
        fitting = [p for p in places if torch.equal(moved(image, *p, border), result)]
        assert fitting
        seen |= set(fitting)
    assert seen == set(places)


def test_a_shift_of_nothing_leaves_images_where_they_are() -> None:
    task, numbers = build(shift=0), torch.arange(100)
    augmented, _ = task._training_batch(numbers, torch.Generator().manual_seed(0))
    assert torch.equal(augmented, task._batch("train", numbers)[0])


def test_scoring_batches_are_unmoved_training_images(task: Digits) -> None:
    training = {image.numpy().tobytes() for image in images_of(task, "train")[0]}
    for images, _ in task.scoring_batches(0):
        assert all(image.numpy().tobytes() in training for image in images)


@pytest.mark.parametrize("width", [4, 32])
def test_the_network_is_a_resnet18(width: int) -> None:
    stem = 9 * width + 2 * width
    first = 4 * (9 * width * width + 2 * width)
    later = [
        9 * (c // 2) * c
        + 3 * 9 * c * c  # four convolutions
        + (c // 2) * c  # the shortcut
        + 5 * 2 * c  # norms
        for c in (2 * width, 4 * width, 8 * width)
    ]
    head = 8 * width * 10 + 10
    model = build(width=width).model()
    assert sum(p.numel() for p in model.parameters()) == stem + first + sum(later) + head
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == 17 + 3


def test_the_default_network_has_2_797_034_parameters() -> None:
    model = build(profile="embedded").model()
    assert sum(parameter.numel() for parameter in model.parameters()) == 2_797_034


class Always(nn.Module):
    """Answers the same for every image."""

    def __init__(self, answer: int) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.one_hot(torch.full([len(images)], self.answer), 10).float()


def test_the_baseline_always_gives_the_most_frequent_answer_in_training(task: Digits) -> None:
    _, labels = digits.read()
    split = digits.split()
    most_frequent = int(np.bincount(labels[split["train"]]).argmax())
    by_hand = 100 * float((labels[split["test"]] == most_frequent).mean())
    assert task.baseline() == pytest.approx(by_hand)
    assert task.evaluate(Always(most_frequent), "test")["accuracy"] == pytest.approx(by_hand)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_accuracies_of_the_ten_constant_answers_add_up_to_all(task: Digits, part: Any) -> None:
    accuracies = [task.evaluate(Always(digit), part)["accuracy"] for digit in range(10)]
    assert sum(accuracies) == pytest.approx(100)


def packed(text: str) -> bytes:
    return gzip.compress(text.encode())


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is not the table of 1,797 digits"),
        (b"no archive", "is damaged"),
        (packed("1,2\n" * 1797)[:-9], "is damaged"),
        (packed("1,2\n" * 1797), "is not the table of 1,797 digits"),
        (packed("1,caf\xe9\n"), "is damaged"),
        (packed((",".join(["17"] * 64) + ",3\n") * 1797), "is not the table of 1,797 digits"),
        (packed((",".join(["nan"] * 64) + ",3\n") * 1797), "is not the table of 1,797 digits"),
        (packed((",".join(["1"] * 64) + ",10\n") * 1797), "is not the table of 1,797 digits"),
    ],
    ids=["empty", "text", "cut short", "narrow", "no numbers", "bright", "NaN", "labels"],
)
@pytest.mark.filterwarnings("ignore:loadtxt")
def test_a_damaged_file_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, complaint: str
) -> None:
    file = tmp_path / "digits.csv.gz"
    file.write_bytes(content)
    monkeypatch.setattr(digits, "_file", lambda: file)
    with pytest.raises(RequestError, match=rf"^digits: {file} {complaint}") as refusal:
        digits.read()
    assert "\n" not in str(refusal.value)


def test_a_missing_file_or_library_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(digits, "_file", lambda: tmp_path / "digits.csv.gz")
        with pytest.raises(RequestError, match=r"cannot read .*digits\.csv\.gz: No such file"):
            digits.describe("embedded", DIGITS, tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RequestError, match="scikit-learn, which is not installed"):
        digits.describe("embedded", DIGITS, tmp_path)
