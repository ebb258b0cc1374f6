"""The data sets of image classification, official or drawn, as arrays of bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from harness.data.cache import cache_folder
from harness.data.decoded import Array, Save, decoded
from harness.data.description import DataDescription
from harness.errors import RequestError
from tasks.images import cifar, drawings, tiny_imagenet

Part = Literal["train", "validation", "test"]

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")

VALIDATION_SHARE = 10
"""One of so many training images is for validation."""


@dataclass(frozen=True)
class DataSet:
    """A published data set, and the drawings in its format."""

    title: str
    folder: str
    """Where its files lie in the data folder: the task's name."""
    classes: int
    size: int
    """Pixels of a side."""
    noise: float
    """Of the drawings."""
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    """Of red, green and blue in the official training images, of 1."""
    verify: Callable[[Path], str]
    """Returns a fingerprint of the official files in a folder, or refuses them."""
    decode: Callable[[Path, Save], None]
    """Saves the `ARRAYS` of the official files in a folder."""

    def describe(
        self, profile: str, settings: Mapping[str, Any], data_folder: Path
    ) -> DataDescription:
        """Return what the data are.

        Raises:
            RequestError: an official file is missing or is not the official one, or there are too
                few images.
        """
        self._require_images(settings)
        if settings["images"] == "official":
            fingerprint = self.verify(data_folder / self.folder)
            return DataDescription("official", self.title, fingerprint)
        counts = [settings["train_images"], settings["test_images"]]
        text = f"drawings {drawings.VERSION} {self.classes} {self.size} {self.noise} {counts}"
        fingerprint = hashlib.sha256(text.encode()).hexdigest()
        return DataDescription("synthetic", f"drawings; not {self.title}", fingerprint)

    def _require_images(self, settings: Mapping[str, Any]) -> None:
        least = {"train_images": VALIDATION_SHARE, "test_images": 1}
        for name, smallest in least.items():
            all_there_are = settings[name] == 0 and settings["images"] == "official"
            if settings[name] < smallest and not all_there_are:
                raise RequestError(
                    f"{self.folder}: {name}={settings[name]} is too few: "
                    f"{smallest} at least, or 0 for all official ones"
                )

    def arrays(self, settings: Mapping[str, Any], data_folder: Path) -> Mapping[str, Array]:
        """Return the images and labels of both parts.

        They are ``train_images`` and ``test_images`` (count, 3, size, size), from 0 to 255, and
        ``train_labels`` and ``test_labels`` (count,).

        Raises:
            RequestError: as `describe`.
        """
        if settings["images"] == "official":
            folder = data_folder / self.folder
            cache = cache_folder() / self.folder / f"decoded-{self.verify(folder)[:16]}"
            return decoded(cache, ARRAYS, partial(self.decode, folder))
        arrays: dict[str, Array] = {}
        for seed, part in enumerate(("train", "test")):
            count = settings[f"{part}_images"]
            images, labels = drawings.draw(count, self.classes, self.size, self.noise, seed)
            arrays |= {f"{part}_images": images, f"{part}_labels": labels}
        return arrays


def split(train: int, test: int, limits: Mapping[str, Any]) -> dict[Part, npt.NDArray[np.int64]]:
    """Return the image numbers of each part, the same for all seeds.

    Args:
        train: training images there are, from which those for validation are cut.
        test: test images there are.
        limits: at most so many ``train_images`` and ``test_images`` are used, all where it is 0.
    """
    order = np.random.default_rng(0).permutation(train)[: limits["train_images"] or None]
    held_out = len(order) // VALIDATION_SHARE
    return {
        "train": order[held_out:],
        "validation": order[:held_out],
        "test": np.arange(test)[: limits["test_images"] or None],
    }


CIFAR10 = DataSet(
    title="CIFAR-10",
    folder="cifar10",
    classes=10,
    size=32,
    noise=0.25,
    mean=(0.4914, 0.4822, 0.4465),
    deviation=(0.2023, 0.1994, 0.2010),
    verify=partial(cifar.verify, name="cifar-10-batches-py"),
    decode=partial(cifar.decode, name="cifar-10-batches-py"),
)
CIFAR100 = DataSet(
    title="CIFAR-100",
    folder="cifar100",
    classes=100,
    size=32,
    noise=0.1,
    mean=(0.5071, 0.4865, 0.4409),
    deviation=(0.2673, 0.2564, 0.2762),
    verify=partial(cifar.verify, name="cifar-100-python"),
    decode=partial(cifar.decode, name="cifar-100-python"),
)
TINY_IMAGENET = DataSet(
    title="Tiny-ImageNet-200",
    folder="tiny_imagenet",
    classes=200,
    size=64,
    noise=0.1,
    mean=(0.4802, 0.4481, 0.3975),
    deviation=(0.2770, 0.2691, 0.2821),
    verify=tiny_imagenet.verify,
    decode=tiny_imagenet.decode,
)

describe_cifar10 = CIFAR10.describe
describe_cifar100 = CIFAR100.describe
describe_tiny_imagenet = TINY_IMAGENET.describe
