"""Find the disparity of each pixel of two images with a pyramid stereo matching network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.data.loading import loaded
from harness.errors import RequestError
from harness.registry import task
from harness.task import ShuffledBatches, Split, Task, scoring_indices
from tasks.images.transforms import normalised
from tasks.psmnet import data
from tasks.psmnet.formats import Pair, Pairs, load_pairs
from tasks.psmnet.model import MULTIPLE, NETWORKS, REDUCTION, PSMNet
from tasks.psmnet.settings import BY_HAND, PROFILES, STEREO, StereoSettings

Batch = tuple[Tensor, Tensor, Tensor]
"""Left and right images, normalised (pairs, 3, height, width), and disparities of the left ones."""

OUTPUT_WEIGHTS = (0.5, 0.7, 1.0)
"""Weights of the losses of the outputs, as published; a network with one output has the last."""

BASELINE_PAIRS = 200
"""The baseline is the median disparity of at most so many training pairs."""


@task(
    "psmnet",
    title="Stereo, PSMNet",
    metric="end_point_error",
    goal="min",
    data="tasks.psmnet.data:describe",
    settings=STEREO,
    profiles=PROFILES,
    by_hand=BY_HAND,
    sparsity=0.9,
)
class Stereo(Task):
    """Pairs of rectified images; the metric is the end-point error in pixels.

    Pixels count if their disparity is known and less than ``max_disparity``. Training uses random
    crops. Evaluation uses whole images, padded at the top and at the right if the network needs
    it. With rendered scenes, the test includes a real pair, Middlebury's motorcycle.

    The ``paper`` profile is the authors' recipe for SceneFlow. For KITTI they train the resulting
    network (``start=RUN``) for another 300 epochs.
    """

    settings: StereoSettings
    outputs_are = "values"

    def __init__(self, settings: StereoSettings, data_folder: Path, device: torch.device) -> None:
        super().__init__(settings, data_folder, device)
        self._require_sizes_that_fit()
        parts = data.read(settings, data_folder)
        self._training = parts.training
        self._held_out: dict[Split, Pairs] = {"validation": parts.validation, "test": parts.test}
        for name, pairs in (("training", parts.training), *self._held_out.items()):
            self._require_valid_pixels(name, pairs)
        self.steps_per_epoch = -(-len(self._training) // settings.batch_size)

    def _require_sizes_that_fit(self) -> None:
        smallest = REDUCTION * self.settings.pooling
        for name, divisor, least in (
            ("pooling", 8, 8),
            ("max_disparity", MULTIPLE, MULTIPLE),
            ("crop_height", MULTIPLE, smallest),
            ("crop_width", MULTIPLE, smallest),
        ):
            value = self.settings[name]
            if value % divisor or value < least:
                raise RequestError(
                    f"psmnet: {name}={value} is not a multiple of {divisor} from {least} on"
                )

    def _require_valid_pixels(self, name: str, pairs: Pairs) -> None:
        """Refuse a part without any valid pixel.

        Usually the first pair has one, and no other pair is read.
        """
        if not any(self._valid(_disparity(pairs, number)).any() for number in range(len(pairs))):
            raise RequestError(
                f"psmnet: none of the {len(pairs)} {name} pairs has a pixel of known disparity "
                f"below max_disparity={self.settings.max_disparity}"
            )

    def model(self) -> nn.Module:
        """Return the network."""
        settings = self.settings
        network = NETWORKS[settings.model]
        return network(settings.width, settings.max_disparity, settings.pooling)

    def stream(self, model: nn.Module, seed: int) -> ShuffledBatches:
        """Return shuffled batches of random crops."""
        return ShuffledBatches(
            len(self._training),
            self.settings.batch_size,
            seed,
            lambda stacked, _: self._batch(*stacked),
            self._random_crops,
            self.device,
        )

    def _random_crops(self, numbers: Tensor, generator: torch.Generator) -> Batch:
        return self._crops(numbers, torch.rand(len(numbers), 2, generator=generator))

    def _centres(self, numbers: Tensor) -> Batch:
        return self._batch(*self._crops(numbers, torch.full((len(numbers), 2), 0.5)))

    def _crops(self, numbers: Tensor, places: Tensor) -> Batch:
        """Return crops as they are stored, stacked.

        Args:
            numbers: the training pairs.
            places: of the crops (pairs, 2), as shares of the largest row and column offset.
        """
        pairs = load_pairs(self._training, numbers.tolist())
        return _stacked(
            [self._crop(pair, *place) for pair, place in zip(pairs, places.tolist(), strict=True)]
        )

    def _crop(self, pair: Pair, down: float, across: float) -> Pair:
        height, width = self.settings.crop_height, self.settings.crop_width
        rows, columns = pair.disparity.shape
        if rows < height or columns < width:
            raise RequestError(
                f"psmnet: crops of {width}x{height} do not fit into images of {columns}x{rows}"
            )
        top, left = int(down * (rows - height + 1)), int(across * (columns - width + 1))
        window = np.s_[top : top + height, left : left + width]
        return Pair(pair.left[window], pair.right[window], pair.disparity[window])

    def _batch(self, left: Tensor, right: Tensor, known: Tensor) -> Batch:
        """Return stored pairs as the network takes them."""
        return self._normalised(left), self._normalised(right), known.to(self.device)

    def _normalised(self, pictures: Tensor) -> Tensor:
        # Channels come first in memory, too: with channels last, oneDNN (torch 2.14) writes past
        # the end of a buffer in the backward pass of a 1x1 convolution of 4 channels with stride 2.
        images = pictures.to(self.device).permute(0, 3, 1, 2).contiguous()
        return normalised(images.div(255))

    def scoring_batches(self, seed: int) -> list[Batch]:
        """Return five batches of the centres of training images."""
        chosen = scoring_indices(len(self._training), self.settings.batch_size, seed)
        return [self._centres(numbers) for numbers in chosen]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the smooth L1 loss in pixels, weighted over the outputs."""
        return self.loss_and_outputs(model, batch)[0]

    def loss_and_outputs(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the smooth L1 loss, and the disparities of the last output."""
        left, right, known = batch
        outputs = _psmnet(model).disparities(left, right)
        return self._over_outputs(outputs, known, F.smooth_l1_loss), outputs[-1]

    def scoring_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return half the squared error, weighted over the outputs.

        It equals the smooth L1 loss for errors below a pixel. Early in training most errors are
        larger; there the smooth L1 loss is linear, and its second derivatives are 0.
        """
        left, right, known = batch
        outputs = _psmnet(model).disparities(left, right)
        return self._over_outputs(outputs, known, F.mse_loss) / 2

    def _over_outputs(
        self, outputs: Sequence[Tensor], known: Tensor, distance: Callable[..., Tensor]
    ) -> Tensor:
        """Return the weighted sum of the outputs' mean distances over the valid pixels."""
        valid = self._valid(known)
        # An unknown disparity may be NaN, and 0 * NaN is NaN.
        known = torch.where(valid, known, 0.0)
        sums = [(distance(output, known, reduction="none") * valid).sum() for output in outputs]
        means = torch.stack(sums) / valid.sum().clamp(min=1)
        weights = means.new_tensor(OUTPUT_WEIGHTS[-len(outputs) :])
        total: Tensor = (means * weights).sum()
        return total

    def _valid(self, known: Tensor) -> Tensor:
        valid: Tensor = (known > 0) & (known < self.settings.max_disparity)
        return valid

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Return the end-point error in pixels, and the 3-pixel error in percent."""
        results = self._evaluate(model, self._held_out[split])
        if split == "test" and self.settings.dataset == "scenes":
            real = self._evaluate(model, [data.motorcycle()])
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
        """Return the padding of a side that makes it fit the network."""
        enough: int = max(side, REDUCTION * self.settings.pooling)
        return -(-enough // MULTIPLE) * MULTIPLE - side

    def baseline(self) -> float:
        """Return the test error of the best constant: the median disparity of training images."""
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
        """Return the centre of one training pair."""
        return self._centres(torch.zeros(1, dtype=torch.long))

    def flow(self, model: nn.Module) -> Tensor:
        """Return the summed matching costs of the last output for two images of ones."""
        side = REDUCTION * self.settings.pooling
        ones = torch.ones(1, 3, side, side, device=self.device, dtype=torch.double)
        return _psmnet(model).costs(ones, ones)[-1].sum()


class Errors:
    """Errors over all valid pixels of a set, not means over images."""

    def __init__(self) -> None:
        self._pixels = 0
        self._distance = 0.0
        self._wrong = 0

    def add(self, predicted: Tensor, known: Tensor, valid: Tensor) -> None:
        """Add one or more images.

        Args:
            predicted: predicted disparities in pixels.
            known: true disparities, of the same shape.
            valid: the pixels that count.
        """
        distance = (predicted - known).abs()[valid].double()
        is_wrong = (distance >= 3) & (distance >= 0.05 * known[valid])
        self._pixels += distance.numel()
        self._distance += float(distance.sum())
        self._wrong += int(torch.count_nonzero(is_wrong))

    @property
    def end_point_error(self) -> float:
        """The mean error in pixels, NaN if no pixel counts."""
        return self._distance / self._pixels if self._pixels else math.nan

    @property
    def three_pixel_error(self) -> float:
        """Percentage of pixels that are wrong by at least 3 pixels and 5 %, as KITTI defines it.

        NaN if no pixel counts.
        """
        return 100 * self._wrong / self._pixels if self._pixels else math.nan


def _disparity(pairs: Pairs, number: int) -> Tensor:
    return torch.from_numpy(pairs[number].disparity)


def _stacked(pairs: Sequence[Pair]) -> Batch:
    """Return pairs of equal size as they are stored: bytes (pairs, height, width, 3)."""
    left, right, known = (torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True))
    return left, right, known


def _psmnet(model: nn.Module) -> PSMNet:
    assert isinstance(model, PSMNet)
    return model
