"""Predict the depth of every pixel of a room from one image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.data.loading import loaded
from harness.errors import RequestError
from harness.registry import task
from harness.task import ShuffledBatches, Split, Task, scoring_indices
from tasks.images.transforms import normalised
from tasks.nyu import data
from tasks.nyu.augmentation import augmented, centre_crop
from tasks.nyu.data import HALF
from tasks.nyu.errors import LEAST_DEPTH, LOSSES, averaged, berhu, image_sums, is_known, pooled
from tasks.nyu.model import FCRN, load_encoder
from tasks.nyu.settings import DEPTH, FILES, PROFILES, DepthSettings

Batch = tuple[Tensor, Tensor]
"""Normalised images (n, 3, height, width), and depths in metres (n, height, width)."""


@task(
    "nyu",
    title="Depth from one image, FCRN",
    metric="rmse",
    goal="min",
    data="tasks.nyu.data:describe",
    settings=DEPTH,
    profiles=PROFILES,
    downloads=FILES,
)
class NYUDepth(Task):
    """Rooms indoors; the metric is the root mean squared error in metres.

    Training minimises the reverse Huber loss. It is linear up to a fifth of the largest error,
    where most pixels contribute nothing to second derivatives. So pruning criteria use the mean
    squared error (``scoring_loss=berhu`` lets them use the reverse Huber loss).

    Networks see the centre of the image at half the resolution (228x304 pixels of 480x640), and
    losses compare their depths, enlarged bilinearly, with that centre. ``evaluate`` returns the
    measures in both published protocols. The first is that of Laina et al.: the prediction is
    enlarged to the whole frame, although it was made from the centre, and all pixels of all
    images are pooled. In the second (``..._per_image``), that of sparse-to-dense, the centre is
    compared, and the measures of the images are averaged.

    The published recipe of the pruned network is not known. The ``paper`` profile has the data,
    network, batch size and epochs of the public re-implementation of Laina et al., and Adam.
    """

    settings: DepthSettings
    outputs_are = "values"

    def __init__(self, settings: DepthSettings, data_folder: Path, device: torch.device) -> None:
        super().__init__(settings, data_folder, device)
        self._parts = data.read(settings, data_folder)
        self._require_known_depths()
        self._samples = len(self._parts["train"].images)
        self.steps_per_epoch = -(-self._samples // settings.batch_size)

    def _require_known_depths(self) -> None:
        for name, part in self._parts.items():
            if not any(bool((depth > 0).any()) for depth in part.depths):
                raise RequestError(
                    f"nyu: none of the {len(part.depths)} {name} frames has a pixel of known depth"
                )

    def model(self) -> nn.Module:
        """Return the network."""
        settings = self.settings
        network = FCRN(settings.encoder, settings.width, settings.up, settings.dropout)
        if settings.init == "pretrained":
            load_encoder(network.encoder, settings.encoder, self.data_folder / "nyu")
        return network

    def stream(self, model: nn.Module, seed: int) -> ShuffledBatches:
        """Return shuffled and augmented batches."""
        return ShuffledBatches(
            self._samples,
            self.settings.batch_size,
            seed,
            self._augmented,
            lambda numbers, _: self._read(numbers),
            self.device,
        )

    def _augmented(self, frames: tuple[Tensor, Tensor], generator: torch.Generator) -> Batch:
        images, depths = frames
        images, depths = augmented(_pixels(images), depths, self.settings.zoom, generator)
        return normalised(images), depths

    def _batch(self, numbers: Tensor) -> Batch:
        images, depths = (frames.to(self.device) for frames in self._read(numbers))
        return normalised(centre_crop(_pixels(images))), centre_crop(depths)

    def _read(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Return training images as they are stored, and their depths."""
        part, chosen = self._parts["train"], numbers.numpy()
        return torch.from_numpy(part.images[chosen]), torch.from_numpy(part.depths[chosen])

    def scoring_batches(self, seed: int) -> list[Batch]:
        """Return five batches of the centres of training frames."""
        chosen = scoring_indices(self._samples, self.settings.batch_size, seed)
        return [self._batch(numbers) for numbers in chosen]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the reverse Huber loss in metres."""
        images, depths = batch
        return berhu(_enlarged(model(images), depths), depths)

    def scoring_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss that the setting ``scoring_loss`` names."""
        images, depths = batch
        return LOSSES[self.settings.scoring_loss](_enlarged(model(images), depths), depths)

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Return the six measures in both protocols; those of the second end in ``_per_image``."""
        whole, centre = [], []
        for images, depths in self._held_out(split):
            predicted = model(normalised(centre_crop(images)))
            whole.append(image_sums(_enlarged(predicted, depths), depths))
            seen = centre_crop(depths[HALF])
            centre.append(image_sums(_enlarged(predicted, seen), seen))
        per_image = averaged(torch.cat(centre))
        return pooled(torch.cat(whole)) | {f"{k}_per_image": v for k, v in per_image.items()}

    def _held_out(self, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images at half the resolution, and depths at full resolution."""
        part, size = self._parts[split], self.settings.batch_size

        def read(start: int) -> tuple[Tensor, ...]:
            return tuple(torch.from_numpy(array[start : start + size]) for array in part)

        starts = range(0, len(part.images), size)
        for _, (images, depths) in loaded(read, starts, self.device):
            yield _pixels(images), depths

    def baseline(self) -> float:
        """Return the test RMSE of predicting the mean training depth of each pixel."""
        size = self._parts["train"].depths.shape[1:]
        total, known = torch.zeros(2, *size, device=self.device, dtype=torch.double)
        for numbers in torch.arange(self._samples).split(256):
            depths = self._read(numbers)[1].to(self.device)
            total += torch.where(is_known(depths), depths, 0.0).sum(0)
            known += is_known(depths).sum(0)
        mean = (total / known.clamp(min=1))[None, None]
        sums = [
            image_sums(_enlarged(mean, depths).expand_as(depths), depths)
            for _, depths in self._held_out("test")
        ]
        return pooled(torch.cat(sums))["rmse"]

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the depths (images, pixels) at the network's resolution."""
        depths: Tensor = model(batch[0])
        return depths.flatten(1)

    def inference(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return depths in metres, of the size of the images."""
        images, depths = batch
        return _enlarged(model(images), depths).clamp(min=LEAST_DEPTH)

    def one_sample(self) -> Batch:
        """Return the centre of one training frame."""
        return self._batch(torch.zeros(1, dtype=torch.long))


def _pixels(images: Tensor) -> Tensor:
    """Return images from 0 to 1."""
    return images.float().div(255)


def _enlarged(predicted: Tensor, like: Tensor) -> Tensor:
    """Return predictions (n, 1, h, w) as maps (n, height, width) of the size of ``like``."""
    return F.interpolate(predicted, size=like.shape[1:], mode="bilinear")[:, 0]
