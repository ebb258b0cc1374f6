"""The digits of the UCI repository's optical recognition set, as scikit-learn ships them."""

from __future__ import annotations

import hashlib
import importlib.util
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.data.description import DataDescription
from harness.errors import RequestError
from tasks.images.data import Part

TRAIN, VALIDATION, TEST = 898, 180, 719
"""Sizes of the three parts."""

CLASSES = 10

LARGEST_VALUE = 16
"""Of a pixel."""


def describe(profile: str, settings: Mapping[str, Any], data_folder: Path) -> DataDescription:
    """Describe the data.

    Raises:
        RequestError: scikit-learn is not installed, or its file is missing.
    """
    try:
        content = _file().read_bytes()
    except OSError as error:
        raise RequestError(f"digits: cannot read {error.filename}: {error.strerror}") from None
    fingerprint = hashlib.sha256(content).hexdigest()
    return DataDescription("real", "scikit-learn digits (1,797 images of 8x8)", fingerprint)


def read() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the images (1797, 1, 8, 8) with values from 0 to 16, and their labels (1797,).

    Raises:
        RequestError: the file is missing or damaged.
    """
    file = _file()
    try:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise RequestError(f"digits: {file} is damaged: {error}") from None
    pixels, labels = table[..., :64], table[..., 64:]
    if (
        table.shape != (TRAIN + VALIDATION + TEST, 65)
        or not ((pixels >= 0) & (pixels <= 16)).all()
        or not np.isin(labels, range(CLASSES)).all()
    ):
        raise RequestError(f"digits: {file} is not the table of 1,797 digits")
    return pixels.reshape(-1, 1, 8, 8), labels[:, 0].astype(np.int64)


def split() -> dict[Part, npt.NDArray[np.int64]]:
    """Return the image numbers of each part, the same for all seeds.

    Neighbouring images are by the same writers, so they are shuffled before they are split.
    """
    order = np.random.default_rng(0).permutation(TRAIN + VALIDATION + TEST)
    train, validation, test = np.split(order, [TRAIN, TRAIN + VALIDATION])
    return {"train": train, "validation": validation, "test": test}


def _file() -> Path:
    """Return the file without importing scikit-learn, which takes a second."""
    specification = importlib.util.find_spec("sklearn")
    if specification is None or specification.origin is None:
        raise RequestError("digits: the images come with scikit-learn, which is not installed")
    return Path(specification.origin).parent / "datasets" / "data" / "digits.csv.gz"
