"""CIFAR-10, CIFAR-100 and Tiny-ImageNet, official or drawn, as arrays of bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from harness.data.cache import cache_folder
from harness.data.decoded import Array, Save, decoded
from harness.data.description import DataDescription, Source
from harness.errors import RequestError
from tasks.images import drawings, official
from tasks.images.settings import PhotographSettings

Part = Literal["train", "validation", "test"]

SOURCES: Mapping[Part, Literal["train", "test"]] = {
    "train": "train",
    "validation": "train",
    "test": "test",
}
"""The published part from which each part is taken."""

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")

VALIDATION_SHARE = 10
"""One training image out of so many is for validation."""


@dataclass(frozen=True)
class DataSet:
    """A published data set, and drawings in its format."""

    title: str
    folder: str
    """The folder of its files in the data folder: the task's name."""
    classes: int
    size: int
    """Pixels of a side."""
    noise: float
    """Standard deviation of the noise in drawings, of 1."""
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    """Standard deviation; like the mean, of red, green and blue of the official images, of 1."""
    identify: Callable[[Path, str], tuple[Source, str]]
    """Returns source and fingerprint of the files in a folder, of which those with the source that
    the second argument names are accepted, or raises `RequestError`."""
    decode: Callable[[Path, Save], None]
    """Saves the `ARRAYS` of the official files in a folder."""

    def describe(
        self, profile: str, settings: PhotographSettings, data_folder: Path
    ) -> DataDescription:
        """Describe the data.

        Raises:
            RequestError: an official file is missing, or differs from the published one and is not
                accepted, or there are too few images.
        """
        self._require_images(settings)
        if settings.images == "official":
            source, fingerprint = self.identify(data_folder / self.folder, settings.accept)
            other = "" if source == "official" else ", other files"
            return DataDescription(source, f"{self.title}{other}", fingerprint)
        counts = [settings.train_images, settings.test_images]
        text = f"drawings {drawings.VERSION} {self.classes} {self.size} {self.noise} {counts}"
        fingerprint = hashlib.sha256(text.encode()).hexdigest()
        return DataDescription("synthetic", f"drawings; not {self.title}", fingerprint)

    def _require_images(self, settings: PhotographSettings) -> None:
        for name, least in (("train_images", VALIDATION_SHARE), ("test_images", 1)):
            count = settings[name]
            wants_all = count == 0 and settings.images == "official"
            if count < least and not wants_all:
                raise RequestError(
                    f"{self.folder}: {name}={count} is too few: "
                    f"at least {least}, or 0 for all official ones"
                )

    def arrays(self, settings: PhotographSettings, data_folder: Path) -> Mapping[str, Array]:
        """Return the images and labels of both parts.

        The arrays are ``train_images`` and ``test_images`` (count, 3, size, size), from 0 to 255,
        and ``train_labels`` and ``test_labels`` (count,).

        Raises:
            RequestError: as for `describe`.
        """
        if settings.images == "official":
            folder = data_folder / self.folder
            _, fingerprint = self.identify(folder, settings.accept)
            cache = cache_folder() / self.folder / f"decoded-{fingerprint[:16]}"
            return decoded(cache, ARRAYS, partial(self.decode, folder))
        arrays: dict[str, Array] = {}
        for seed, part in enumerate(("train", "test")):
            count = settings[f"{part}_images"]
            images, labels = drawings.draw(count, self.classes, self.size, self.noise, seed)
            arrays |= {f"{part}_images": images, f"{part}_labels": labels}
        return arrays


def split(
    train: int, test: int, *, train_images: int = 0, test_images: int = 0
) -> dict[Part, npt.NDArray[np.int64]]:
    """Return the image numbers of each part, the same for all seeds.

    Args:
        train: number of published training images; those for validation are taken from them.
        test: number of published test images.
        train_images: how many of the former are used at most; 0 for all.
        test_images: how many of the latter are used at most; 0 for all.
    """
    order = np.random.default_rng(0).permutation(train)[: train_images or None]
    held_out = len(order) // VALIDATION_SHARE
    return {
        "train": order[held_out:],
        "validation": order[:held_out],
        "test": np.arange(test)[: test_images or None],
    }


CIFAR10 = DataSet(
    title="CIFAR-10",
    folder="cifar10",
    classes=10,
    size=32,
    noise=0.25,
    mean=(0.4914, 0.4822, 0.4465),
    deviation=(0.2023, 0.1994, 0.2010),
    identify=official.CIFAR10_BATCHES.identify,
    decode=official.CIFAR10_BATCHES.decode,
)
CIFAR100 = DataSet(
    title="CIFAR-100",
    folder="cifar100",
    classes=100,
    size=32,
    noise=0.1,
    mean=(0.5071, 0.4865, 0.4409),
    deviation=(0.2673, 0.2564, 0.2762),
    identify=official.CIFAR100_BATCHES.identify,
    decode=official.CIFAR100_BATCHES.decode,
)
TINY_IMAGENET = DataSet(
    title="Tiny-ImageNet-200",
    folder="tiny_imagenet",
    classes=200,
    size=64,
    noise=0.1,
    mean=(0.4802, 0.4481, 0.3975),
    deviation=(0.2770, 0.2691, 0.2821),
    identify=official.identify_tiny_imagenet,
    decode=official.decode_tiny_imagenet,
)

describe_cifar10 = CIFAR10.describe
describe_cifar100 = CIFAR100.describe
describe_tiny_imagenet = TINY_IMAGENET.describe
