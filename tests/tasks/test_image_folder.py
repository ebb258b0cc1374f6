"""The task of a user's own folder of images: what it finds, how it divides it, what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.api import run_pairing
from harness.data.cache import VARIABLE
from harness.errors import RequestError
from harness.network import build_task
from harness.registry import Registry
from harness.spec import Plan, plan
from tasks.images import folder
from tasks.images.settings import FOLDER_PROFILES
from tasks.images.task import FolderImages
from tests.helpers.own_data import paint

CLASSES = ("ash", "beech", "oak")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return tmp_path


def planned(name: str = "leaves", **settings: str) -> Plan:
    overrides = {"folder": name, "batch_size": "8", **settings}
    return plan(Registry(), "images", "dense", profile="smoke", overrides=overrides)


def build(name: str = "leaves", **settings: str) -> FolderImages:
    task = build_task(planned(name, **settings), torch.device("cpu"))
    assert isinstance(task, FolderImages)
    return task


def test_a_run_without_a_folder_is_on_drawings() -> None:
    wanted = plan(Registry(), "images", "dense", profile="smoke")
    assert (wanted.data.source, wanted.data.name) == ("synthetic", "drawings of 5 shapes")
    task = build_task(wanted, torch.device("cpu"))
    images, labels = task.one_sample()
    assert images.shape == (1, 3, 32, 32)
    assert 0 <= int(labels) < 5


def test_a_run_on_a_folder_says_what_it_is_about(place: Path) -> None:
    paint(place / "leaves", CLASSES)
    record = run_pairing(
        "images",
        "crop_s",
        sparsity=0.5,
        profile="smoke",
        settings={"folder": "leaves", "batch_size": 8, "epochs": 1},
    )
    assert record["status"] == "done"
    assert record["data"]["source"] == "real"
    assert record["data"]["name"] == (
        "images of leaves in 3 classes (21 train, 3 validation, 6 test; split by file with seed 0)"
    )


def test_every_file_is_in_one_part_and_every_class_in_all(place: Path) -> None:
    paint(place / "leaves", CLASSES, each=20)
    settings = replace(FOLDER_PROFILES["smoke"], folder="leaves")
    found = folder.find(settings, place)
    together = np.concatenate(list(found.numbers.values()))
    assert sorted(together) == list(range(60))
    assert {part: len(numbers) for part, numbers in found.numbers.items()} == {
        "train": 42,
        "validation": 6,
        "test": 12,
    }
    for numbers in found.numbers.values():
        assert set(found.labels[numbers]) == {0, 1, 2}


def test_folders_of_parts_are_taken_as_they_are(place: Path) -> None:
    for part, each in (("train", 5), ("val", 2), ("test", 3)):
        paint(place / "leaves" / part, CLASSES, each=each)
    assert planned().data.name == (
        "images of leaves in 3 classes (15 train, 6 validation, 9 test; folders train, val, test)"
    )


def test_a_single_held_out_folder_is_the_test(place: Path) -> None:
    paint(place / "leaves" / "train", CLASSES, each=20)
    paint(place / "leaves" / "val", CLASSES, each=2)
    assert planned().data.name == (
        "images of leaves in 3 classes (54 train, 6 validation, 6 test; folders train, val, "
        "validation split off train by file with seed 0)"
    )


def test_a_changed_image_is_another_run(place: Path) -> None:
    file = paint(place / "leaves", CLASSES) / "oak" / "3.png"
    before = planned()
    assert planned().run_id == before.run_id
    Image.new("RGB", (40, 40)).save(file)
    assert planned().run_id != before.run_id


def test_a_folder_is_found_in_the_data_folder(place: Path) -> None:
    paint(place / "data" / "leaves", CLASSES)
    assert planned().data.source == "real"


def test_images_become_squares_of_their_middle(place: Path) -> None:
    paint(place / "leaves", CLASSES)
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, 16:48, 0] = 200
    Image.fromarray(pixels).save(place / "leaves" / "ash" / "0.png")
    task = build(normalisation="none")
    everything = torch.cat(
        [images for part in ("train", "validation", "test") for images, _ in task.batches(part)]
    )
    middle = torch.zeros(3, 32, 32)
    middle[0] = 200 / 255
    assert any(torch.allclose(image, middle) for image in everything)


def test_own_normalisation_is_that_of_the_training_images(place: Path) -> None:
    paint(place / "leaves", CLASSES)
    task = build()
    images = torch.cat([images for images, _ in task.batches("train")])
    assert images.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-4)
    assert images.var((0, 2, 3), correction=0).tolist() == pytest.approx([1, 1, 1], abs=1e-3)


def test_guessing_the_most_frequent_class_is_the_baseline(place: Path) -> None:
    paint(place / "leaves", CLASSES)
    assert build().baseline() == pytest.approx(100 / 3)


class TestRefused:
    def test_a_missing_folder(self) -> None:
        with pytest.raises(RequestError, match="folder=nowhere is not a folder, here or in data"):
            planned("nowhere")

    def test_an_empty_folder(self, place: Path) -> None:
        (place / "leaves").mkdir()
        with pytest.raises(RequestError, match="folder=leaves has no images: it needs a folder"):
            planned()

    def test_one_class(self, place: Path) -> None:
        paint(place / "leaves", ["ash"])
        with pytest.raises(RequestError, match="has one class, 'ash'"):
            planned()

    def test_a_class_of_two_images(self, place: Path) -> None:
        paint(place / "leaves", CLASSES, each=2)
        with pytest.raises(RequestError, match="the class 'ash' has 2 training images; 3 parts"):
            planned()

    def test_a_class_without_training_images(self, place: Path) -> None:
        paint(place / "leaves" / "train", ["ash", "oak"])
        paint(place / "leaves" / "test", ["yew"])
        with pytest.raises(RequestError, match="the class 'yew' has no training images"):
            planned()

    @pytest.mark.parametrize("content", [b"", b"no image", None], ids=["empty", "text", "half"])
    def test_a_broken_image(self, place: Path, content: bytes | None) -> None:
        file = paint(place / "leaves", CLASSES) / "oak" / "3.png"
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2] if content is None else content)
        with pytest.raises(RequestError, match=r"oak/3\.png is no image that can be read: "):
            build()

    def test_a_single_image_in_the_last_batch(self, place: Path) -> None:
        paint(place / "leaves", CLASSES)
        with pytest.raises(RequestError, match="leaves one of 21 training images alone"):
            build(batch_size="20")
