"""Rendered scenes, and what the stereo task makes of pairs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harness.command_line import main
from harness.errors import RequestError
from harness.registry import Registry
from harness.spec import plan
from tasks.psmnet import data, scenes
from tasks.psmnet.formats import Pair
from tasks.psmnet.model import NETWORKS
from tasks.psmnet.official import Parts
from tasks.psmnet.settings import PROFILES
from tasks.psmnet.task import Errors, Stereo, _stacked

SMOKE = PROFILES["smoke"]


def build(**changes: Any) -> Stereo:
    return Stereo(replace(SMOKE, **changes), Path(), torch.device("cpu"))


@pytest.fixture(scope="module")
def task() -> Stereo:
    return build()


# Scenes


@pytest.fixture(scope="module")
def scene() -> scenes.Scene:
    return scenes.render(5)


def test_a_scene_is_decided_by_its_seed(scene: scenes.Scene) -> None:
    again, other = scenes.render(5), scenes.render(4)
    assert np.array_equal(scene.left, again.left)
    assert np.array_equal(scene.right_disparity, again.right_disparity)
    assert not np.array_equal(scene.left, other.left)


@pytest.mark.parametrize("seed", range(5))
def test_disparities_are_positive_and_below_the_largest(seed: int) -> None:
    rendered = scenes.render(seed)
    for disparity in (rendered.left_disparity, rendered.right_disparity):
        assert 0 < disparity.min() < disparity.max() <= scenes.LARGEST_DISPARITY


def test_what_is_seen_in_both_images_has_one_colour_and_one_disparity(
    scene: scenes.Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenes, "_exposed", lambda colours, gain, random: colours)
    rendered = scenes.render(5)
    rows, columns = np.mgrid[: scenes.HEIGHT, : scenes.WIDTH]
    places = columns - rendered.left_disparity.astype(float)
    before = np.clip(np.floor(places).astype(int), 0, scenes.WIDTH - 2)
    share = places - before

    def in_right(values: Any) -> Any:
        weight = share.reshape(share.shape + (1,) * (values.ndim - 2))
        return values[rows, before] * (1 - weight) + values[rows, before + 1] * weight

    # Both neighbours have the same disparity as the pixel, up to the slope of a layer.
    neighbours = rendered.right_disparity[rows, before], rendered.right_disparity[rows, before + 1]
    same_layer = (places >= 0) & np.all(
        [np.abs(d - rendered.left_disparity) < 0.12 for d in neighbours], axis=0
    )
    assert 0.5 < same_layer.mean() < 1
    difference = np.abs(in_right(rendered.right) - rendered.left)[same_layer]
    assert np.median(difference) < 0.5
    nearer = in_right(rendered.right_disparity) > rendered.left_disparity + 1
    assert nearer[places >= 0].mean() > 0.01, "nothing is hidden behind anything"


def test_no_layer_is_seen_through_a_nearer_one(scene: scenes.Scene) -> None:
    columns = np.arange(scenes.WIDTH)
    for row in range(0, scenes.HEIGHT, 16):
        disparity = scene.left_disparity[row]
        target = np.rint(columns - disparity).astype(int)
        inside = target >= 1
        behind = scene.right_disparity[row, target[inside]]
        around = np.maximum(behind, scene.right_disparity[row, target[inside] - 1])
        around = np.maximum(
            around, scene.right_disparity[row, np.minimum(target[inside] + 1, scenes.WIDTH - 1)]
        )
        assert np.all(around >= disparity[inside] - 0.2)


def test_training_and_test_scenes_differ(task: Stereo) -> None:
    parts = data.read(SMOKE, Path())
    sizes = [len(part) for part in (parts.training, parts.validation, parts.test)]
    assert sizes == [20, 1, 2]
    pictures = {
        part[number].left.tobytes()
        for part in (parts.training, parts.validation, parts.test)
        for number in range(len(part))
    }
    assert len(pictures) == sum(sizes)
    expected = scenes.render(scenes.TEST_SEEDS)
    assert np.array_equal(parts.test[0].disparity, expected.left_disparity)


def test_scenes_are_stamped_synthetic() -> None:
    assert data.describe("smoke", SMOKE, Path()).source == "synthetic"
    more = replace(SMOKE, training_scenes=40)
    assert data.describe("", more, Path()).sha256 != data.describe("", SMOKE, Path()).sha256


# Metrics


def test_errors_are_pooled_over_pixels_and_not_over_images() -> None:
    errors = Errors()
    everywhere = torch.ones(4, dtype=torch.bool)
    errors.add(torch.tensor([1.0, 2, 3, 4]), torch.tensor([1.0, 2, 3, 6]), everywhere)
    errors.add(
        torch.tensor([9.0, 0, 0, 0]), torch.tensor([1.0, 9, 9, 9]), everywhere.cumsum(0) == 1
    )
    assert errors.end_point_error == pytest.approx((2 + 8) / 5)
    assert errors.three_pixel_error == pytest.approx(100 / 5)


def test_a_pixel_is_wrong_by_3_pixels_and_by_5_percent() -> None:
    errors = Errors()
    known = torch.tensor([10.0, 10.0, 100.0, 100.0])
    predicted = torch.tensor([12.9, 13.0, 104.0, 106.0])
    errors.add(predicted, known, known > 0)
    assert errors.three_pixel_error == pytest.approx(50)


class Constant(nn.Module):
    """Sees the same disparity everywhere."""

    def __init__(self, disparity: float) -> None:
        super().__init__()
        self.disparity = disparity

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        assert left.shape == right.shape
        assert all(side % 16 == 0 for side in left.shape[2:])
        return left.new_full((len(left), *left.shape[2:]), self.disparity)


def test_the_baseline_is_the_best_constant_of_the_training_scenes(task: Stereo) -> None:
    parts = data.read(SMOKE, Path())
    median = np.median(np.stack([parts.training[n].disparity for n in range(20)]))
    result = task.evaluate(Constant(float(median)), "test")
    assert task.baseline() == pytest.approx(result["end_point_error"], rel=1e-3)


def test_the_test_includes_the_motorcycle(task: Stereo) -> None:
    disparity = data.motorcycle().disparity
    by_hand = float(np.abs(disparity[disparity > 0].astype(float) - 17).mean())
    result = task.evaluate(Constant(17), "test")
    assert result["motorcycle_end_point_error"] == pytest.approx(by_hand)
    # The best constant for the motorcycle is far off: there is something to see in it.
    assert by_hand > 7
    assert set(task.evaluate(Constant(17), "validation")) == {
        "end_point_error",
        "three_pixel_error",
    }


class LeftColumn(nn.Module):
    """Returns the red of the left image, normalised: which pixel is where."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return left[:, 0]


def test_images_are_padded_at_the_top_and_at_the_right_and_cut_again(task: Stereo) -> None:
    images = torch.randn(1, 3, 33, 50)
    assert torch.equal(task._whole(LeftColumn(), images, images), images[:, 0])
    tiny = torch.randn(1, 3, 5, 7)
    assert torch.equal(task._whole(LeftColumn(), tiny, tiny), tiny[:, 0])


# Batches and losses


def test_crops_of_a_pair_belong_together(task: Stereo) -> None:
    numbers = torch.arange(4)
    crops = task._random_crops(numbers, torch.Generator().manual_seed(0))
    left, right, known = task._batch(*crops)
    assert left.shape == right.shape == (4, 3, 32, 64)
    assert known.shape == (4, 32, 64)
    whole_left, _, whole = task._batch(*_stacked([task._training[0]]))
    places = [
        (row, column)
        for row in range(scenes.HEIGHT - 31)
        for column in range(scenes.WIDTH - 63)
        if torch.equal(whole[0, row : row + 32, column : column + 64], known[0])
    ]
    ((row, column),) = places
    assert torch.equal(whole_left[0, :, row : row + 32, column : column + 64], left[0])


def test_scoring_batches_are_the_centres_of_training_images(task: Stereo) -> None:
    centres = [task._training[number].disparity[32:64, 64:128].tobytes() for number in range(20)]
    for _, _, known in task.scoring_batches(0):
        assert all(disparity.numpy().tobytes() in centres for disparity in known)


class Outputs(nn.Module):
    """Three outputs that are wrong by known numbers of pixels."""

    def __init__(self, known: Tensor, *errors: float) -> None:
        super().__init__()
        self.results = [known + error for error in errors]

    def disparities(self, left: Tensor, right: Tensor) -> list[Tensor]:
        return self.results


def test_the_losses_of_the_outputs_are_weighted(
    task: Stereo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.psmnet.task._psmnet", lambda model: model)
    known = torch.tensor([[[1.0, 5.0, 0.0, 40.0]]])
    # Neither the unknown pixel nor the one beyond the network's range counts.
    images = torch.zeros(1, 3, 1, 4)
    outputs = Outputs(known, 3.0, 0.5, 2.0)
    for output in outputs.results:
        output[..., 2:] = 1000
    batch = (images, images, known)
    smooth = 0.5 * 2.5 + 0.7 * 0.125 + 1.0 * 1.5
    squared = 0.5 * 4.5 + 0.7 * 0.125 + 1.0 * 2.0
    assert float(task.loss(outputs, batch)) == pytest.approx(smooth)
    assert float(task.scoring_loss(outputs, batch)) == pytest.approx(squared)
    outputs.results = outputs.results[-1:]
    assert float(task.loss(outputs, batch)) == pytest.approx(1.5)


def test_a_batch_without_a_known_disparity_has_no_loss(task: Stereo) -> None:
    model = NETWORKS["basic"](4, 32, 8)
    images = torch.randn(2, 3, 32, 64)
    loss = task.loss(model, (images, images, torch.zeros(2, 32, 64)))
    assert float(loss.detach()) == 0


def test_too_few_scenes_for_a_validation_part_are_refused() -> None:
    complaint = "training_scenes=19 is less than 20, of which one is for validation"
    with pytest.raises(RequestError, match=complaint):
        plan(Registry(), "psmnet", "dense", overrides={"training_scenes": "19"})


@pytest.mark.parametrize(
    ("setting", "value", "complaint"),
    [
        ("max_disparity", 40, "max_disparity=40 is not a multiple of 16 from 16 on"),
        ("pooling", 4, "pooling=4 is not a multiple of 8 from 8 on"),
        ("crop_width", 72, "crop_width=72 is not a multiple of 16 from 32 on"),
        ("crop_height", 16, "crop_height=16 is not a multiple of 16 from 32 on"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(setting: str, value: int, complaint: str) -> None:
    with pytest.raises(RequestError, match=complaint):
        build(**{setting: value})


def test_a_crop_that_is_larger_than_an_image_is_refused(task: Stereo) -> None:
    picture = np.zeros((16, 64, 3), dtype=np.uint8)
    pair = Pair(picture, picture, np.ones((16, 64), dtype=np.float32))
    with pytest.raises(RequestError, match="crops of 64x32 do not fit into images of 64x16"):
        task._crop(pair, 0.5, 0.5)


def test_what_has_a_licence_is_fetched_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "fetch", "psmnet", "--data", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    for name in ("SceneFlow/Monkaa", "Kitti2012", "Kitti2015"):
        assert f"by hand, below {tmp_path / 'psmnet'}: " in output
        assert name in output
    assert "nothing to download" not in output


def test_what_is_missing_is_said_by_the_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", "psmnet", "--data", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "psmnet: no images at" in said
    assert "data fetch psmnet says where to get them" in said


def test_each_data_set_can_be_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "check", "psmnet", "--data", str(tmp_path), "--set"]
    assert main([*words, "dataset=kitti2015"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "0 disparities at" in line
    assert "Kitti2015" in line


# Unknown disparities


@pytest.mark.parametrize("unknown", [math.nan, math.inf, -math.inf, -1.0, 32.0])
def test_an_unknown_disparity_has_no_effect_however_it_is_marked(
    task: Stereo, unknown: float
) -> None:
    torch.manual_seed(0)
    model = task.model().eval()
    left, right, known = task.scoring_batches(0)[0]
    known[:, ::3] = 0.0
    marked = known.clone()
    marked[:, ::3] = unknown
    for loss in (task.loss, task.scoring_loss):
        expected, found = loss(model, (left, right, known)), loss(model, (left, right, marked))
        assert found == expected
        gradients = torch.autograd.grad(found, list(model.parameters()), allow_unused=True)
        assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)
    errors = Errors()
    errors.add(torch.full_like(marked, 3.0), marked, task._valid(marked))
    assert errors.end_point_error < 32


def test_without_a_valid_pixel_there_is_no_error() -> None:
    errors, far = Errors(), torch.full((1, 4, 4), 250.0)
    errors.add(torch.zeros(1, 4, 4), far, far < 192)
    assert math.isnan(errors.end_point_error)
    assert math.isnan(errors.three_pixel_error)


@pytest.mark.parametrize("part", ["training", "validation", "test"])
def test_a_part_without_a_valid_pixel_is_refused(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = np.zeros((32, 64, 3), np.uint8)
    pairs = [Pair(picture, picture, np.full((32, 64), value, np.float32)) for value in (0, 9)]
    parts = {"training": pairs, "validation": pairs, "test": pairs}
    far = [Pair(picture, picture, np.full((32, 64), value, np.float32)) for value in (0, 32)]
    monkeypatch.setattr(data, "read", lambda *arguments: Parts(**parts))
    build()
    parts[part] = far
    complaint = f"none of the 2 {part} pairs has a pixel of known disparity below max_disparity=32"
    with pytest.raises(RequestError, match=complaint):
        build()
