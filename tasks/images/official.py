"""Readers of the official files: CIFAR's Python format, and the archive of Tiny-ImageNet."""

from __future__ import annotations

import hashlib
import io
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from harness.data.decoded import Save
from harness.data.description import is_hidden
from harness.data.download import require_checksum
from harness.errors import RequestError
from tasks.images.settings import TINY_IMAGENET_ARCHIVE, TINY_IMAGENET_MD5

# CIFAR-10 and CIFAR-100 (Krizhevsky, 2009)

CIFAR_MD5: Mapping[str, Mapping[str, str]] = {
    "cifar-10-batches-py": {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
        "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    },
    "cifar-100-python": {
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "meta": "7973b15100ade9c7d40fb424638fde48",
    },
}
"""The unpacked files of both data sets, by the folder of their archive."""

_DAMAGED = (OSError, EOFError, KeyError, RuntimeError, ValueError, pickle.UnpicklingError)
"""What torchvision raises for damaged files."""


def verify_cifar(folder: Path, name: str) -> str:
    """Return a fingerprint of the official files; only their checksums are computed.

    Args:
        folder: the task's folder in the data folder.
        name: the folder of the files in it.

    Raises:
        RequestError: a file is missing, or differs from the official one.
    """
    for file, expected in CIFAR_MD5[name].items():
        require_checksum(folder / name / file, expected, folder.name)
    return hashlib.sha256(" ".join(CIFAR_MD5[name].values()).encode()).hexdigest()


def decode_cifar(folder: Path, save: Save, name: str) -> None:
    """Read the pickles through torchvision, which verifies the checksums again.

    Args:
        folder: the task's folder in the data folder.
        save: takes the arrays.
        name: the folder of the files in it.

    Raises:
        RequestError: a file is damaged.
    """
    from torchvision.datasets import CIFAR10, CIFAR100

    kinds = {kind.base_folder: kind for kind in (CIFAR10, CIFAR100)}
    for part, is_training in (("train", True), ("test", False)):
        try:
            data = kinds[name](folder, train=is_training)
        except _DAMAGED as error:
            raise RequestError(f"{folder.name}: {folder / name} is damaged: {error}") from None
        pixels = data.data.transpose(0, 3, 1, 2)
        if len(pixels) != len(data.targets):
            raise RequestError(
                f"{folder.name}: {folder / name} has {len(pixels)} images and "
                f"{len(data.targets)} labels for {part}, which do not match"
            )
        save(f"{part}_images", pixels.__getitem__, range(len(pixels)))
        save(f"{part}_labels", np.int64, data.targets)


# Tiny-ImageNet-200 (Stanford's CS231n), read from its archive without unpacking it

_ROOT = "tiny-imagenet-200"
_TABLE = "val/val_annotations.txt"
_SIDE = 64
"""Pixels of a side."""


def verify_tiny_imagenet(folder: Path) -> str:
    """Return a fingerprint of the official archive; only its checksum is computed.

    Raises:
        RequestError: the archive is missing, or differs from the official one.
    """
    require_checksum(folder / TINY_IMAGENET_ARCHIVE, TINY_IMAGENET_MD5, folder.name)
    return hashlib.sha256(TINY_IMAGENET_MD5.encode()).hexdigest()


def decode_tiny_imagenet(folder: Path, save: Save) -> None:
    """Decode the training images, and those of ``val``, which are the test images here.

    The images of ``test`` have no published labels. Classes are numbered in the order of their
    WordNet names.

    Raises:
        RequestError: a member of the archive is missing or damaged.
    """
    path = folder / TINY_IMAGENET_ARCHIVE
    try:
        with zipfile.ZipFile(path) as archive:
            classes = sorted(_lines(archive, "wnids.txt"))
            numbers = {name: number for number, name in enumerate(classes)}
            for part, samples in (("train", _train(archive)), ("test", _validation(archive))):
                if not samples:
                    raise RequestError(f"tiny_imagenet: {path} has no images for {part}")
                save(f"{part}_labels", lambda sample: _number(sample[1], numbers), samples)
                save(f"{part}_images", lambda sample: _picture(archive, sample[0]), samples)
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
