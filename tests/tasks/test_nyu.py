"""Depth of rooms: how they are rendered, varied, and what the task makes of them."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harness.errors import RequestError
from harness.registry import Registry
from harness.spec import plan
from tasks.nyu import data, rooms
from tasks.nyu.augmentation import augmented, centre_crop, cropped_size
from tasks.nyu.data import Part
from tasks.nyu.model import FCRN, load_encoder
from tasks.nyu.settings import PROFILES
from tasks.nyu.task import NYUDepth

CPU = torch.device("cpu")
PARTS = ("train", "validation", "test")
SMOKE = PROFILES["smoke"]


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def task(data_folder: Path) -> NYUDepth:
    return build(data_folder)


def build(data_folder: Path, **changes: Any) -> NYUDepth:
    return NYUDepth(replace(SMOKE, **changes), data_folder, CPU)


# Rendered rooms


def empty_room() -> rooms.Room:
    """A grey room of 4 x 4 x 3 metres with a box of a metre in a corner."""
    corners = np.array([[0, 0, 0], [3, 3, 0]]), np.array([[4, 4, 3], [4, 4, 1]])
    colours, tiles = np.full((2, 6, 2, 3), 0.5), np.full((2, 6, 2), np.inf)
    lamp = np.array([2, 2, 2.8])
    return rooms.Room(*(part.astype(np.float32) for part in (*corners, colours, tiles, lamp)))


@pytest.mark.parametrize(
    ("ray", "depth", "box", "axis"),
    [
        ((1, 1e-6, 1e-6), 2.0, 0, 0),  # the wall ahead
        ((-2, 1e-6, 1e-6), 1.0, 0, 0),  # the wall behind, in steps of two metres
        ((1e-6, 1e-6, 1), 2.0, 0, 2),  # the ceiling
        ((1, 0.8, -0.2), 1.25, 1, 1),  # the side of the furniture
        ((0.8, 1, -0.2), 1.25, 1, 0),  # its front
        ((1, 1.2, 0.2), 2 / 1.2, 0, 1),  # over it
        ((-1, -1, -0.2), 2.0, 0, 0),  # away from it
    ],
)
def test_rays_end_at_the_first_face(
    ray: tuple[float, ...], depth: float, box: int, axis: int
) -> None:
    eye, rays = np.array([2, 2, 1], np.float32), np.array(ray, np.float32)[:, None]
    depths, boxes, axes = rooms.first_hits(empty_room(), eye, rays)
    assert float(depths[0]) == pytest.approx(depth, rel=1e-5)
    assert (boxes[0], axes[0]) == (box, axis)


def test_a_picture_has_nyus_axes_and_depths_within_the_room() -> None:
    generator = np.random.default_rng(3)
    room = rooms.furnished(generator)
    image, depth = rooms.photograph(room, generator)
    assert image.shape == (3, 120, 160)
    assert image.dtype == np.uint8
    assert depth.shape == (120, 160)
    assert 0 < depth.min() < depth.max() < math.dist((0, 0, 0), room.upper[0])
    assert len(np.unique(image)) > 50


def test_rooms_are_functions_of_their_number(tmp_path: Path) -> None:
    for name in ("first", "again"):
        rooms.write(tmp_path / name, rooms=2, views=1)
    first, again = (
        {
            file.relative_to(tmp_path / name): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in (tmp_path / name).rglob("*.h5")
        }
        for name in ("first", "again")
    )
    assert first == again
    assert len(set(first.values())) == 2 + rooms.held_out(2)


def test_rooms_that_are_tested_on_are_never_trained_on(task: NYUDepth) -> None:
    pictures = {name: {image.tobytes() for image in task._parts[name].images} for name in PARTS}
    assert len(set.union(*pictures.values())) == sum(map(len, pictures.values()))
    assert {name: len(found) for name, found in pictures.items()} == {
        "train": 20,
        "validation": 4,
        "test": 8,
    }


def test_rooms_are_synthetic_and_their_number_is_part_of_what_they_are() -> None:
    def describe(count: int) -> Any:
        return data.describe("smoke", replace(SMOKE, rooms=count, views=2), Path())

    assert describe(3).source == "synthetic"
    assert "not NYU Depth v2" in describe(3).name
    assert describe(3).sha256 == describe(3).sha256 != describe(4).sha256


# How frames are varied


def test_the_middle_is_cropped_as_published() -> None:
    assert cropped_size(240, 320) == (228, 304)
    rows = torch.arange(240.0)[:, None].expand(240, 320)
    assert centre_crop(rows)[:, 0].tolist() == list(range(6, 234))
    columns = torch.arange(320.0).expand(240, 320)
    assert centre_crop(columns)[0].tolist() == list(range(8, 312))


def ramps(count: int) -> tuple[Tensor, Tensor]:
    """Images whose red grows from left to right, green from top to bottom; depths of 6 metres."""
    down = torch.linspace(0, 1, 120)[:, None].expand(120, 160)
    right = torch.linspace(0, 1, 160).expand(120, 160)
    images = torch.stack([right, down, torch.full_like(down, 0.5)]).expand(count, -1, -1, -1)
    return images, torch.full((count, 120, 160), 6.0)


def test_half_of_the_frames_are_mirrored_and_all_are_turned_a_little() -> None:
    images, _ = augmented(*ramps(200), 1.0, torch.Generator().manual_seed(0))
    inner = images[:, :, 20:-20, 20:-20]
    grows = (inner[:, 0].diff(dim=2).mean((1, 2)) > 0).float().mean()
    assert 0.4 < float(grows) < 0.6
    across = inner[:, 1].diff(dim=2).mean((1, 2)) / inner[:, 1].diff(dim=1).mean((1, 2))
    degrees = across.atan().rad2deg().abs()
    assert 4.5 < float(degrees.max()) < 5.01
    assert 1.5 < float(degrees.mean()) < 3.5


def test_zooming_in_brings_everything_nearer_by_as_much() -> None:
    images, depths = augmented(*ramps(100), 1.5, torch.Generator().manual_seed(0))
    nearer = 6 / depths[:, 57, 76]
    assert 1 <= float(nearer.min()) < 1.05
    assert 1.45 < float(nearer.max()) <= 1.5
    red = images[:, 0, 40:-40, 50:-50]
    centre = images[:, 0, 56:58, 75:77].mean((1, 2))
    steepness = torch.stack([red.diff(dim=dim).mean((1, 2)) for dim in (1, 2)]).norm(dim=0)
    # Red grows by 1 in 159 pixels before these are zoomed, and is a half in the middle.
    assert torch.allclose(steepness / centre, 2 / 159 / (nearer * 250 / 240), rtol=0.01)


def test_colours_vary_by_a_fifth_each_and_depths_only_by_what_is_seen() -> None:
    images, depths = augmented(*ramps(300), 1.0, torch.Generator().manual_seed(0))
    factors = images[:, 2, 57, 76] / 0.5
    assert 0.8 <= float(factors.min()) < 0.82
    assert 1.18 < float(factors.max()) <= 1.2
    assert set(depths.unique().tolist()) <= {0.0, 6.0}
    assert float((depths == 0).float().mean()) < 0.01


def test_unknown_depths_do_not_blend_with_known_ones() -> None:
    images, depths = ramps(20)
    depths = torch.where(torch.rand(depths.shape) < 0.5, depths, 0)
    _, varied = augmented(images, depths, 1.0, torch.Generator().manual_seed(0))
    assert set(varied.unique().tolist()) == {0.0, 6.0}


# The task


class Constant(nn.Module):
    """Says the same depth for every pixel, at an eighth of the resolution."""

    def __init__(self, depth: float) -> None:
        super().__init__()
        self.depth = depth

    def forward(self, images: Tensor) -> Tensor:
        return torch.full((len(images), 1, 7, 9), self.depth)


def test_a_constant_is_compared_with_all_pixels_of_the_test_frames(task: NYUDepth) -> None:
    truth = task._parts["test"].depths.astype(np.float64)
    found = task.evaluate(Constant(2.5), "test")
    assert truth.shape[1:] == (120, 160)
    assert found["rmse"] == pytest.approx(np.sqrt(((2.5 - truth) ** 2).mean()))
    assert found["rel"] == pytest.approx((np.abs(2.5 - truth) / truth).mean())
    ratio = np.maximum(2.5 / truth, truth / 2.5)
    assert found["delta2"] == pytest.approx(100 * (ratio < 1.25**2).mean())


def test_the_other_protocol_averages_images_of_the_middle(task: NYUDepth) -> None:
    middle = task._parts["test"].depths[:, ::2, ::2][:, 1:58, 2:78].astype(np.float64)
    found = task.evaluate(Constant(2.5), "test")
    by_image = np.sqrt(((2.5 - middle) ** 2).mean((1, 2)))
    assert found["rmse_per_image"] == pytest.approx(by_image.mean())
    ratio = np.maximum(2.5 / middle, middle / 2.5)
    assert found["delta1_per_image"] == pytest.approx(100 * (ratio < 1.25).mean())


def test_the_baseline_is_the_mean_of_each_pixel_in_training(
    task: NYUDepth, monkeypatch: pytest.MonkeyPatch
) -> None:
    depths = np.ones((20, 60, 80), np.float32)
    depths[:, :, 40:] = 5
    depths[0, :, 40:] = 0  # unknown
    whole = np.ones((8, 120, 160), np.float32)
    whole[:, :, 80:] = 7
    parts = {
        "train": Part(task._parts["train"].images, depths),
        "test": Part(task._parts["test"].images, whole),
    }
    monkeypatch.setattr(task, "_parts", parts)
    # Half of the pixels is 2 metres wrong; enlarging blurs the two columns between.
    assert task.baseline() == pytest.approx(math.sqrt(2), rel=0.02)


def test_training_frames_are_varied_and_scored_ones_are_not(task: NYUDepth) -> None:
    pixels = (task._parts["train"].images[:, :, 1:58, 2:78] / 255.0).astype(np.float32)
    known = {np.round(pixel, 3).tobytes() for pixel in pixels}

    def original(images: Tensor) -> list[bool]:
        back = images * torch.tensor([0.229, 0.224, 0.225])[:, None, None]
        back = back + torch.tensor([0.485, 0.456, 0.406])[:, None, None]
        return [np.round(image.numpy(), 3).tobytes() in known for image in back]

    assert all(all(original(images)) for images, _ in task.scoring_batches(0))
    images, depths = task.stream(nn.Identity(), seed=0).next(nn.Identity())
    assert not any(original(images))
    assert images.shape == (16, 3, 57, 76)
    assert depths.shape == (16, 57, 76)


def test_scores_use_the_squared_error_unless_asked_otherwise(
    task: NYUDepth, data_folder: Path
) -> None:
    batch = task.scoring_batches(0)[0]
    model = Constant(2.0)
    squared = float((2.0 - batch[1]).square().mean())
    assert float(task.scoring_loss(model, batch)) == pytest.approx(squared)
    other = build(data_folder, scoring_loss="berhu")
    assert float(other.scoring_loss(model, batch)) == float(other.loss(model, batch)) != squared


def test_a_finished_network_says_no_depth_below_a_millimetre(task: NYUDepth) -> None:
    batch = task.one_sample()
    assert torch.equal(task.inference(Constant(-1.0), batch), torch.full_like(batch[1], 1e-3))


def test_the_paper_profile_has_the_published_network_and_data() -> None:
    wanted = {
        "encoder": "resnet50", "width": 64, "up": "fast", "init": "pretrained", "dropout": 0.5,
        "batch_size": 16, "zoom": 1.5, "frames": "labelled",
    }  # fmt: skip
    assert wanted.items() <= PROFILES["paper"].items()


# Published weights


def test_published_weights_are_checked_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    source, model = FCRN("resnet18", 4).encoder, FCRN("resnet18", 4)
    state = {**source.state_dict(), "fc.weight": torch.zeros(3), "fc.bias": torch.zeros(3)}
    torch.save(state, tmp_path / "weights.pth")
    digest = hashlib.sha256((tmp_path / "weights.pth").read_bytes()).hexdigest()
    monkeypatch.setattr(data, "WEIGHTS", {"resnet18": "weights.pth"})
    monkeypatch.setattr(data, "FILES", {"weights.pth": ("", digest)})
    load_encoder(model.encoder, "resnet18", tmp_path)
    loaded, published = model.encoder.state_dict(), source.state_dict()
    assert all(torch.equal(loaded[name], published[name]) for name in published)

    with pytest.raises(RequestError, match="fit only a resnet18 with width=64"):
        load_encoder(FCRN("resnet18", 8).encoder, "resnet18", tmp_path)
    with (tmp_path / "weights.pth").open("ab") as file:
        file.write(b"more")
    with pytest.raises(RequestError, match=r"is truncated or changed: its SHA-256 is .* and not"):
        load_encoder(model.encoder, "resnet18", tmp_path)


def test_missing_weights_are_refused_before_anything_is_run(tmp_path: Path) -> None:
    complaint = r"cannot read .*resnet18-f37072fd.pth: No such file .*data fetch nyu`, or copy"
    with pytest.raises(RequestError, match=complaint):
        plan(Registry(), "nyu", "dense", overrides={"init": "pretrained"}, data_folder=tmp_path)


@pytest.mark.parametrize("name", PARTS)
def test_a_part_without_a_known_depth_is_refused(
    name: str, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = data.read(SMOKE, data_folder)
    parts[name] = Part(parts[name].images, np.zeros_like(parts[name].depths))
    monkeypatch.setattr(data, "read", lambda *arguments: parts)
    complaint = f"none of the [0-9]+ {name} frames has a pixel of known depth"
    with pytest.raises(RequestError, match=complaint):
        build(data_folder)
