"""Readers of the official files: CIFAR's Python format, and the archive of Tiny-ImageNet."""

from __future__ import annotations

import contextlib
import io
import pickle
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.data.decoded import Save
from harness.data.description import Source, is_hidden
from harness.data.official import identify
from harness.errors import RequestError
from tasks.images.settings import (
    CIFAR10_FOLDER,
    CIFAR10_UNPACKED,
    CIFAR100_FOLDER,
    CIFAR100_UNPACKED,
    TINY_IMAGENET_ARCHIVE,
    TINY_IMAGENET_MD5,
)

# CIFAR-10 and CIFAR-100 (Krizhevsky, 2009)

PUBLISHED_IMAGES = {"train": 50_000, "test": 10_000}
"""Images of each part, in both data sets."""

_DAMAGED = (OSError, EOFError, AttributeError, LookupError, TypeError, ValueError)
"""What unpickling raises for damaged files, besides its own error."""


@dataclass(frozen=True)
class CifarFiles:
    """The files of CIFAR's Python format, in the folder of their archive."""

    folder: str
    checksums: Mapping[str, str]
    """Of all files, by their paths in the folder of the task."""
    train: Sequence[str]
    test: Sequence[str]
    labels: str
    """The key of the labels."""
    classes: int

    def identify(self, data_folder: Path, accept: str) -> tuple[Source, str]:
        """Return the source of the files, and their fingerprint.

        Args:
            data_folder: the task's folder in the data folder.
            accept: the setting of that name.

        Raises:
            RequestError: a file is missing, or differs from the official one and is not accepted,
                or unofficial data are not complete.
        """
        source, fingerprint = identify(data_folder, self.checksums, data_folder.name, accept)
        if source == "unofficial":
            for part, count in PUBLISHED_IMAGES.items():
                if (found := len(self._read(data_folder, part)[1])) != count:
                    raise RequestError(
                        f"{data_folder.name}: {data_folder / self.folder} has {found:,} images for "
                        f"{part}, not {count:,}: the data are not complete"
                    )
        return source, fingerprint

    def decode(self, data_folder: Path, save: Save) -> None:
        """Save the arrays of both parts.

        Args:
            data_folder: the task's folder in the data folder.
            save: takes the arrays.

        Raises:
            RequestError: a file is damaged.
        """
        for part in PUBLISHED_IMAGES:
            images, labels = self._read(data_folder, part)
            save(f"{part}_images", images.__getitem__, range(len(images)))
            save(f"{part}_labels", np.int64, labels)

    def _read(self, data_folder: Path, part: str) -> tuple[npt.NDArray[np.uint8], Sequence[int]]:
        """Return the images (count, 3, 32, 32) and labels of a part."""
        task, folder = data_folder.name, data_folder / self.folder
        rows, labels = [], list[int]()
        try:
            for name in self.train if part == "train" else self.test:
                with (folder / name).open("rb") as file:
                    batch = _Unpickler(file, encoding="latin1").load()
                rows.append(np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32))
                labels += map(int, batch[self.labels])
            images = np.concatenate(rows)
        except (*_DAMAGED, pickle.UnpicklingError) as error:
            reason = str(error).partition("\n")[0]
            raise RequestError(f"{task}: {folder} is damaged: {reason}") from None
        if len(images) != len(labels):
            raise RequestError(
                f"{task}: {folder} has {len(images)} images and {len(labels)} labels for {part}, "
                "which do not match"
            )
        if labels and not 0 <= min(labels) <= max(labels) < self.classes:
            raise RequestError(f"{task}: {folder} has labels above {self.classes - 1} for {part}")
        return images, labels


class _Unpickler(pickle.Unpickler):
    """Unpickles arrays, texts, numbers and containers, and nothing that could run code.

    torchvision's reader would run it; unofficial files may come from anywhere.
    """

    def find_class(self, module: str, name: str) -> Any:
        """Return a function that builds arrays."""
        if (module.replace("numpy._core", "numpy.core"), name) not in _BUILD_ARRAYS:
            raise pickle.UnpicklingError(f"it calls {module}.{name}, which builds no array")
        # NumPy warns of its former place, which the published files name.
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


_BUILD_ARRAYS = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}

CIFAR10_BATCHES = CifarFiles(
    CIFAR10_FOLDER,
    CIFAR10_UNPACKED,
    [f"data_batch_{number}" for number in range(1, 6)],
    ["test_batch"],
    "labels",
    10,
)
CIFAR100_BATCHES = CifarFiles(
    CIFAR100_FOLDER, CIFAR100_UNPACKED, ["train"], ["test"], "fine_labels", 100
)


# Tiny-ImageNet-200 (Stanford's CS231n), read from its archive without unpacking it

_ROOT = "tiny-imagenet-200"
_TABLE = "val/val_annotations.txt"
_SIDE = 64
"""Pixels of a side."""


TINY_IMAGES = {"train": 100_000, "test": 10_000}
"""Images of each part."""


def identify_tiny_imagenet(folder: Path, accept: str) -> tuple[Source, str]:
    """Return the source of the archive, and its fingerprint; no image is decoded.

    Args:
        folder: the task's folder in the data folder.
        accept: the setting of that name.

    Raises:
        RequestError: the archive is missing, or differs from the official one and is not accepted,
            or an unofficial archive is not complete.
    """
    checksums = {TINY_IMAGENET_ARCHIVE: TINY_IMAGENET_MD5}
    source, fingerprint = identify(folder, checksums, folder.name, accept)
    if source == "unofficial":
        with _opened(folder / TINY_IMAGENET_ARCHIVE) as archive:
            for part, samples in (("train", _train(archive)), ("test", _validation(archive))):
                if len(samples) != TINY_IMAGES[part]:
                    raise RequestError(
                        f"{folder.name}: {folder / TINY_IMAGENET_ARCHIVE} has {len(samples):,} "
                        f"images for {part}, not {TINY_IMAGES[part]:,}: the data are not complete"
                    )
    return source, fingerprint


def decode_tiny_imagenet(folder: Path, save: Save) -> None:
    """Decode the training images, and those of ``val``, which are the test images here.

    The images of ``test`` have no published labels. Classes are numbered in the order of their
    WordNet names.

    Raises:
        RequestError: a member of the archive is missing or damaged.
    """
    path = folder / TINY_IMAGENET_ARCHIVE
    with _opened(path) as archive:
        classes = sorted(_lines(archive, "wnids.txt"))
        numbers = {name: number for number, name in enumerate(classes)}
        for part, samples in (("train", _train(archive)), ("test", _validation(archive))):
            if not samples:
                raise RequestError(f"tiny_imagenet: {path} has no images for {part}")
            save(f"{part}_labels", lambda sample: _number(sample[1], numbers), samples)
            save(f"{part}_images", lambda sample: _picture(archive, sample[0]), samples)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open the archive; errors of reading it become a `RequestError`."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise RequestError(f"tiny_imagenet: {path} is damaged: {error}") from None
    except KeyError as error:  # raised by the archive for a missing member
        raise RequestError(f"tiny_imagenet: {path}: {error.args[0]}") from None


def _number(name: str, numbers: Mapping[str, int]) -> np.int64:
    if name not in numbers:
        raise RequestError(f"tiny_imagenet: the class {name} is not in wnids.txt")
    return np.int64(numbers[name])


def _train(archive: zipfile.ZipFile) -> list[tuple[str, str]]:
    """Return the images ``train/CLASS/images/CLASS_N.JPEG``, each with its class."""
    found = []
    for member in sorted(archive.namelist()):
        parts = member.split("/")
        if (
            parts[:2] == [_ROOT, "train"]
            and member.endswith(".JPEG")
            and not is_hidden(PurePosixPath(member))
        ):
            found.append((member, parts[2]))
    return found


def _validation(archive: zipfile.ZipFile) -> list[tuple[str, str]]:
    """Return the images ``val/images/val_N.JPEG``, each with its class from the table."""
    found = []
    for number, row in enumerate(_lines(archive, _TABLE), start=1):
        file, *rest = row.split("\t")
        if not rest:
            raise RequestError(f"tiny_imagenet: row {number} of {_TABLE} has no class")
        found.append((f"{_ROOT}/val/images/{file}", rest[0]))
    return found


def _lines(archive: zipfile.ZipFile, name: str) -> list[str]:
    try:
        return archive.read(f"{_ROOT}/{name}").decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise RequestError(f"tiny_imagenet: {name} is not UTF-8 at byte {error.start}") from None


def _picture(archive: zipfile.ZipFile, member: str) -> npt.NDArray[np.uint8]:
    """Return an image (3, 64, 64); grey files become grey colours."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(archive.read(member))) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        raise RequestError(f"tiny_imagenet: {member} is not an image") from None
    if pixels.shape != (_SIDE, _SIDE, 3):
        raise RequestError(f"tiny_imagenet: {member} is not an image of {_SIDE} by {_SIDE} pixels")
    return pixels.transpose(2, 0, 1)
