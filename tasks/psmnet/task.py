"""Find the disparity of each pixel from two images with a pyramid stereo matching network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.data.loading import loaded
from harness.errors import RequestError
from harness.registry import task
from harness.task import ShuffledBatches, Split, Task, scoring_indices
from tasks.psmnet import data, motorcycle
from tasks.psmnet.metrics import Errors
from tasks.psmnet.model import MULTIPLE, NETWORKS, REDUCTION, PSMNet
from tasks.psmnet.pairs import Pair, Pairs, load

Batch = tuple[Tensor, Tensor, Tensor]
"""Left and right images, normalised (pairs, 3, height, width), and disparities of the left ones."""

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the colours of ImageNet, from 0 to 1."""

OUTPUT_WEIGHTS = (0.5, 0.7, 1.0)
"""Of the losses of the outputs, as published; a network with one output has the last."""

BASELINE_PAIRS = 200
"""Training pairs at most, of whose disparities the median is the baseline."""


@task(
    "psmnet",
    title="Stereo, PSMNet",
    metric="end_point_error",
    goal="min",
    data="tasks.psmnet.data:describe",
    settings={
        "epochs": 16,
        "batch_size": 2,
        "optimiser": "adam",
        "learning_rate": 2e-3,
        "weight_decay": 0.0,
        "clip": 0.0,
        "dataset": "scenes",
        "training_scenes": 160,
        "test_scenes": 24,
        "model": "basic",
        "width": 8,
        "max_disparity": 32,
        "pooling": 16,
        "crop_height": 64,
        "crop_width": 128,
    },
    profiles={
        "smoke": {
            "epochs": 2,
            "batch_size": 4,
            "training_scenes": 21,
            "test_scenes": 2,
            "width": 4,
            "pooling": 8,
            "crop_height": 32,
            "crop_width": 64,
        },
        "embedded": {},
        "paper": {
            "epochs": 10,
            "batch_size": 12,
            "learning_rate": 1e-3,
            "dataset": "sceneflow",
            "model": "stacked_hourglass",
            "width": 32,
            "max_disparity": 192,
            "pooling": 64,
            "crop_height": 256,
            "crop_width": 512,
        },
    },
    choices={
        "dataset": ("scenes", "sceneflow", "kitti2012", "kitti2015"),
        "model": ("basic", "stacked_hourglass"),
    },
    by_hand=(
        "SceneFlow/FlyingThings3D, SceneFlow/Monkaa and SceneFlow/Driving with the folders "
        "frames_cleanpass and disparity of the archives of that name, for research only, from "
        "https://lmb.informatik.uni-freiburg.de/resources/datasets/SceneFlowDatasets.en.html",
        "Kitti2012 with the folder training of data_stereo_flow.zip, after a registration, from "
        "https://www.cvlibs.net/datasets/kitti/eval_stereo_flow.php?benchmark=stereo",
        "Kitti2015 with the folder training of data_scene_flow.zip, after a registration, from "
        "https://www.cvlibs.net/datasets/kitti/eval_scene_flow.php?benchmark=stereo",
    ),
    sparsity=0.9,
)
class Stereo(Task):
    """Pairs of rectified images; the metric is the end-point error in pixels.

    Pixels count whose disparity is known and less than ``max_disparity``. Training sees random
    crops, and evaluation whole images, made larger at the top and at the right where the network
    needs it. With rendered scenes, the test includes a real pair, Middlebury's motorcycle.

    The ``paper`` profile is the authors' recipe for SceneFlow. For KITTI they begin with the
    network that was trained there (``start=RUN``), for 300 epochs.
    """

    def __init__(
        self, settings: Mapping[str, Any], data_folder: Path, device: torch.device
    ) -> None:
        super().__init__(settings, data_folder, device)
        self._require_sizes_that_fit()
        parts = data.read(settings, data_folder)
        self._training = parts.training
        self._held_out: dict[Split, Pairs] = {"validation": parts.validation, "test": parts.test}
        for name, pairs in (("training", parts.training), *self._held_out.items()):
            self._require_valid_pixels(name, pairs)
        self.steps_per_epoch = -(-len(self._training) // settings["batch_size"])

    def _require_sizes_that_fit(self) -> None:
        smallest = REDUCTION * self.settings["pooling"]
        for name, divisor, least in (
            ("pooling", 8, 8),
            ("max_disparity", MULTIPLE, MULTIPLE),
            ("crop_height", MULTIPLE, smallest),
            ("crop_width", MULTIPLE, smallest),
        ):
            value = self.settings[name]
            if value % divisor or value < least:
                raise RequestError(
                    f"psmnet: {name}={value}: is not a multiple of {divisor} from {least} on"
                )

    def _require_valid_pixels(self, name: str, pairs: Pairs) -> None:
        """Refuse a part that has no pixel to learn from or to be measured on.

        Usually the first pair has one, and no further pair is read.
        """
        if not any(self._valid(_disparity(pairs, number)).any() for number in range(len(pairs))):
            raise RequestError(
                f"psmnet: none of the {len(pairs)} {name} pairs has a pixel of known disparity "
                f"below max_disparity={self.settings['max_disparity']}"
            )

    def model(self) -> nn.Module:
        """Return the network."""
        settings = self.settings
        network = NETWORKS[settings["model"]]
        return network(settings["width"], settings["max_disparity"], settings["pooling"])

    def stream(self, model: nn.Module, seed: int) -> ShuffledBatches:
        """Return shuffled batches of random crops."""
        return ShuffledBatches(
            len(self._training),
            self.settings["batch_size"],
            seed,
            lambda stacked, _: self._batch(*stacked),
            self._random_crops,
            self.device,
        )

    def _random_crops(self, numbers: Tensor, generator: torch.Generator) -> Batch:
        return self._crops(numbers, torch.rand(len(numbers), 2, generator=generator))

    def _middles(self, numbers: Tensor) -> Batch:
        return self._batch(*self._crops(numbers, torch.full((len(numbers), 2), 0.5)))

    def _crops(self, numbers: Tensor, places: Tensor) -> Batch:
        """Return crops as they are stored, stacked.

        Args:
            numbers: of training pairs.
            places: of the crops (pairs, 2): shares of the rows and columns that are left over.
        """
        pairs = load(self._training, numbers.tolist())
        return _stacked(
            [self._crop(pair, *place) for pair, place in zip(pairs, places.tolist(), strict=True)]
        )

    def _crop(self, pair: Pair, down: float, across: float) -> Pair:
        height, width = self.settings["crop_height"], self.settings["crop_width"]
        rows, columns = pair.disparity.shape
        if rows < height or columns < width:
            raise RequestError(
                f"psmnet: crops of {width}x{height} do not fit into images of {columns}x{rows}"
            )
        top, left = int(down * (rows - height + 1)), int(across * (columns - width + 1))
        window = np.s_[top : top + height, left : left + width]
        return Pair(pair.left[window], pair.right[window], pair.disparity[window])

    def _batch(self, left: Tensor, right: Tensor, known: Tensor) -> Batch:
        """Return what is stored as the network gets it."""
        return self._normalised(left), self._normalised(right), known.to(self.device)

    def _normalised(self, pictures: Tensor) -> Tensor:
        # Channels come first in memory too: with channels last, oneDNN (torch 2.14) writes past the
        # end of a buffer in the backward pass of a 1x1 convolution of 4 channels with stride 2.
        images = pictures.to(self.device).permute(0, 3, 1, 2).contiguous()
        mean, deviation = (
            torch.tensor(values, device=self.device).view(3, 1, 1) for values in (MEAN, DEVIATION)
        )
        return images.div(255).sub(mean).div(deviation)

    def scoring_batches(self, seed: int) -> list[Batch]:
        """Return five batches of the middles of training images."""
        chosen = scoring_indices(len(self._training), self.settings["batch_size"], seed)
        return [self._middles(numbers) for numbers in chosen]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the smooth L1 loss in pixels, weighted over the outputs."""
        return self._over_outputs(model, batch, F.smooth_l1_loss)

    def scoring_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return half the squared error, weighted over the outputs.

        It is the smooth L1 loss where that is curved, at errors below a pixel, continued to all
        others: early in training most errors are larger, and second derivatives would see nothing
        of what the loss does there.
        """
        return self._over_outputs(model, batch, F.mse_loss) / 2

    def _over_outputs(
        self, model: nn.Module, batch: Batch, distance: Callable[..., Tensor]
    ) -> Tensor:
        """Return the weighted sum of the outputs' mean distances over the valid pixels."""
        left, right, known = batch
        valid = self._valid(known)
        outputs = _psmnet(model).disparities(left, right)
        # An unknown disparity may be NaN, which 0 does not remove from a product.
        known = torch.where(valid, known, 0.0)
        sums = [(distance(output, known, reduction="none") * valid).sum() for output in outputs]
        means = torch.stack(sums) / valid.sum().clamp(min=1)
        weights = means.new_tensor(OUTPUT_WEIGHTS[-len(outputs) :])
        total: Tensor = (means * weights).sum()
        return total

    def _valid(self, known: Tensor) -> Tensor:
        valid: Tensor = (known > 0) & (known < self.settings["max_disparity"])
        return valid

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Return the end-point error in pixels, and the 3-pixel error in percent."""
        results = self._evaluate(model, self._held_out[split])
        if split == "test" and self.settings["dataset"] == "scenes":
            real = self._evaluate(model, [motorcycle.load()])
            results |= {f"motorcycle_{name}": value for name, value in real.items()}
        return results

    def _evaluate(self, model: nn.Module, pairs: Pairs) -> dict[str, float]:
        errors = Errors()
        numbers = range(len(pairs))
        for _, stored in loaded(lambda number: _stacked([pairs[number]]), numbers, self.device):
            left, right, known = self._batch(*stored)
            errors.add(self._whole(model, left, right), known, self._valid(known))
        return {
            "end_point_error": errors.end_point_error,
            "three_pixel_error": errors.three_pixel_error,
        }

    def _whole(self, model: nn.Module, left: Tensor, right: Tensor) -> Tensor:
        """Return the disparities of images of any size."""
        height, width = left.shape[2:]
        top, beside = self._missing(height), self._missing(width)
        padded = (F.pad(images, (0, beside, top, 0)) for images in (left, right))
        disparities: Tensor = model(*padded)
        return disparities[:, top:, :width]

    def _missing(self, side: int) -> int:
        """Return the pixels that a side lacks to be one that the network takes."""
        enough: int = max(side, REDUCTION * self.settings["pooling"])
        return -(-enough // MULTIPLE) * MULTIPLE - side

    def baseline(self) -> float:
        """Return the test error of the median disparity of training images, the best constant."""
        step = -(-len(self._training) // BASELINE_PAIRS)
        numbers = range(0, len(self._training), step)
        known = torch.cat([_disparity(self._training, number).flatten() for number in numbers])
        valid = known[self._valid(known)]
        if not len(valid):
            raise RequestError(
                f"psmnet: none of the {len(numbers)} training pairs whose median is the baseline "
                "has a pixel of known disparity"
            )
        median, errors = valid.median(), Errors()
        for number in range(len(self._held_out["test"])):
            disparity = _disparity(self._held_out["test"], number)
            errors.add(median, disparity, self._valid(disparity))
        return errors.end_point_error

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the disparities (pairs, pixels)."""
        return self.inference(model, batch).flatten(1)

    def inference(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the disparities (pairs, height, width)."""
        left, right, _ = batch
        disparities: Tensor = model(left, right)
        return disparities

    def one_sample(self) -> Batch:
        """Return the middle of one training pair."""
        return self._middles(torch.zeros(1, dtype=torch.long))

    def flow(self, model: nn.Module) -> Tensor:
        """Return the summed matching costs of the last output for two images of ones."""
        side = REDUCTION * self.settings["pooling"]
        ones = torch.ones(1, 3, side, side, device=self.device, dtype=torch.double)
        return _psmnet(model).costs(ones, ones)[-1].sum()


def _disparity(pairs: Pairs, number: int) -> Tensor:
    return torch.from_numpy(pairs[number].disparity)


def _stacked(pairs: Sequence[Pair]) -> Batch:
    """Return pairs of one size as they are stored: bytes (pairs, height, width, 3)."""
    left, right, known = (torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True))
    return left, right, known


def _psmnet(model: nn.Module) -> PSMNet:
    assert isinstance(model, PSMNet)
    return model
