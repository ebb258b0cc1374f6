"""Tiny-ImageNet-200 (Stanford's CS231n) in its archive, which is read as it is."""

from __future__ import annotations

import hashlib
import io
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

ARCHIVE = "tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
ROOT = "tiny-imagenet-200"
TABLE = "val/val_annotations.txt"
SIZE = 64
"""Pixels of a side."""


def verify(folder: Path) -> str:
    """Return a fingerprint of the official archive, without reading what is in it.

    Raises:
        RequestError: it is missing, or is not the official one.
    """
    require_checksum(folder / ARCHIVE, MD5, folder.name)
    return hashlib.sha256(MD5.encode()).hexdigest()


def decode(folder: Path, save: Save) -> None:
    """Decode the training images, and those of ``val``, which are the test images here.

    The images of ``test`` have no published labels. Classes are numbered in the order of their
    WordNet names.

    Raises:
        RequestError: something is missing or is not what it should be.
    """
    path = folder / ARCHIVE
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
    except KeyError as error:  # of the archive: there is no such member
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
            parts[:2] == [ROOT, "train"]
            and member.endswith(".JPEG")
            and not is_hidden(PurePosixPath(member))
        ):
            found.append((member, parts[2]))
    return found


def _validation(archive: zipfile.ZipFile) -> list[tuple[str, str]]:
    """Return the images ``val/images/val_N.JPEG``, whose classes a table of their own gives."""
    found = []
    for number, row in enumerate(_lines(archive, TABLE), start=1):
        file, *rest = row.split("\t")
        if not rest:
            raise RequestError(f"tiny_imagenet: row {number} of {TABLE} has no class")
        found.append((f"{ROOT}/val/images/{file}", rest[0]))
    return found


def _lines(archive: zipfile.ZipFile, name: str) -> list[str]:
    try:
        return archive.read(f"{ROOT}/{name}").decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise RequestError(f"tiny_imagenet: {name} is not UTF-8 at byte {error.start}") from None


def _picture(archive: zipfile.ZipFile, member: str) -> npt.NDArray[np.uint8]:
    """Return an image (3, 64, 64); some of the files are grey."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(archive.read(member))) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        raise RequestError(f"tiny_imagenet: {member} is no image") from None
    if pixels.shape != (SIZE, SIZE, 3):
        raise RequestError(f"tiny_imagenet: {member} is not an image of {SIZE} by {SIZE} pixels")
    return pixels.transpose(2, 0, 1)
