"""MNIST and Fashion-MNIST from their IDX files, or scikit-learn's digits in their place."""

from __future__ import annotations

import gzip
import hashlib
import struct
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.data.cache import cache_folder
from harness.data.decoded import Array, Save, decoded
from harness.data.description import DataDescription
from harness.data.official import identify, place_of
from harness.errors import RequestError
from tasks.images import digits
from tasks.images.data import ARRAYS, Part, split
from tasks.mnist import settings as files
from tasks.mnist.settings import MnistSettings

SIDE = 28
"""Pixels of a side."""

LARGEST_VALUE = 255
"""The largest value of a stored pixel."""

_FILES = {
    "train": (files.TRAIN_IMAGES, files.TRAIN_LABELS),
    "test": (files.TEST_IMAGES, files.TEST_LABELS),
}


@dataclass(frozen=True)
class DataSet:
    """A published data set of 28x28 grey images in ten classes."""

    title: str
    folder: str
    """The folder of its files in the data folder: the task's name."""
    files: Mapping[str, Sequence[str]]
    """The address and the checksum of each file."""
    train: int = 60_000
    """Published training images."""
    test: int = 10_000
    """Published test images."""

    def describe(self, profile: str, settings: MnistSettings, data_folder: Path) -> DataDescription:
        """Describe the data.

        Raises:
            RequestError: an official file is missing, or differs from the published one and is not
                accepted, or unofficial data are not complete.
        """
        if settings.images == "digits":
            original = digits.describe(profile, settings, data_folder)
            text = f"enlarged to {SIDE}x{SIDE}: {original.sha256}"
            return DataDescription(
                "real",
                f"scikit-learn digits, enlarged to {SIDE}x{SIDE}; not {self.title}",
                hashlib.sha256(text.encode()).hexdigest(),
                stands_in_for=self.title,
            )
        checksums = {name: checksum for name, (_, checksum) in self.files.items()}
        folder = data_folder / self.folder
        source, fingerprint = identify(folder, checksums, self.folder, settings.accept)
        if source == "official":
            return DataDescription(source, self.title, fingerprint)
        self._require_complete(folder)
        return DataDescription(source, f"{self.title}, other files", fingerprint)

    def arrays(
        self, settings: MnistSettings, data_folder: Path
    ) -> tuple[Mapping[str, Array], Mapping[Part, npt.NDArray[np.int64]]]:
        """Return images and labels, and the numbers of the images in each part.

        Raises:
            RequestError: as for `describe`, or a file is damaged.

        Returns:
            The arrays ``train_images`` and ``test_images`` (count, 1, 28, 28), from 0 to 255, and
            ``train_labels`` and ``test_labels`` (count,); and the numbers of the images for
            training and validation among the former, for the test among the latter.
        """
        if settings.images == "digits":
            return _enlarged_digits()
        described = self.describe("", settings, data_folder)
        folder = data_folder / self.folder
        cache = cache_folder() / self.folder / f"decoded-{described.sha256[:16]}"
        arrays = decoded(cache, ARRAYS, partial(self._decode, folder))
        return arrays, split(len(arrays["train_labels"]), len(arrays["test_labels"]))

    def _require_complete(self, folder: Path) -> None:
        for part, count in (("train", self.train), ("test", self.test)):
            for name, shape in zip(_FILES[part], ((count, SIDE, SIDE), (count,)), strict=True):
                path = place_of(folder, name)
                if (found := _shape(path)) != shape:
                    raise RequestError(
                        f"{self.folder}: {path} has the shape {found}, not {shape}: "
                        "the data are not complete"
                    )

    def _decode(self, folder: Path, save: Save) -> None:
        for part, (images_name, labels_name) in _FILES.items():
            images = _read(place_of(folder, images_name))[:, None]
            labels = _read(place_of(folder, labels_name))
            if images.shape != (len(labels), 1, SIDE, SIDE):
                raise RequestError(
                    f"{self.folder}: {folder} has images of shape {images.shape} and "
                    f"{len(labels)} labels for {part}, which do not match"
                )
            if not np.isin(labels, range(digits.CLASSES)).all():
                raise RequestError(f"{self.folder}: {folder} has labels above 9 for {part}")
            save(f"{part}_images", images.__getitem__, range(len(images)))
            save(f"{part}_labels", np.int64, labels.tolist())


def _read(path: Path) -> npt.NDArray[np.uint8]:
    """Read an IDX file through torchvision, which does not take compressed ones."""
    from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor

    try:
        with tempfile.NamedTemporaryFile() as unpacked:
            unpacked.write(_content(path))
            unpacked.flush()
            array: npt.NDArray[np.uint8] = read_sn3_pascalvincent_tensor(unpacked.name).numpy()
    except _DAMAGED as error:
        raise RequestError(f"{path} is damaged: {_in_one_line(error)}") from None
    if array.dtype != np.uint8:
        raise RequestError(f"{path} is damaged: its values are {array.dtype}, not bytes")
    return array


def _content(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def _shape(path: Path) -> tuple[int, ...]:
    """Return the shape that the header of an IDX file states."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            dimensions = file.read(4)[3]
            return struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
    except _DAMAGED as error:
        raise RequestError(f"{path} is damaged: {_in_one_line(error)}") from None


_DAMAGED = (
    *(OSError, EOFError, zlib.error, struct.error),
    *(AssertionError, IndexError, KeyError, ValueError),
)
"""What the readers raise for damaged files."""


def _in_one_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _enlarged_digits() -> tuple[dict[str, Array], dict[Part, npt.NDArray[np.int64]]]:
    import torch
    from torch.nn import functional as F

    small, labels = digits.read()
    brightness = torch.from_numpy(small) * (LARGEST_VALUE / digits.LARGEST_VALUE)
    enlarged = F.interpolate(brightness, (SIDE, SIDE), mode="bilinear")
    images = enlarged.round().to(torch.uint8).numpy()
    arrays = {"images": images, "labels": labels}
    # Both parts are in the same arrays.
    both = {f"{part}_{name}": array for part in _FILES for name, array in arrays.items()}
    return both, digits.split()


MNIST = DataSet("MNIST", "mnist", files.MNIST_FILES)
FASHION_MNIST = DataSet("Fashion-MNIST", "fashion_mnist", files.FASHION_MNIST_FILES)

describe_mnist = MNIST.describe
describe_fashion_mnist = FASHION_MNIST.describe
