"""The digits of the UCI repository's optical recognition set, as scikit-learn ships them."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.data.description import DataDescription

TRAIN, VALIDATION, TEST = 898, 180, 719
"""Sizes of the three parts."""


def describe(profile: str, settings: Mapping[str, Any], data_folder: Path) -> DataDescription:
    """Return what the data are."""
    fingerprint = hashlib.sha256(_file().read_bytes()).hexdigest()
    return DataDescription("real", "scikit-learn digits (1,797 images of 8x8)", fingerprint)


def read() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the images (1797, 1, 8, 8) with values from 0 to 16, and their labels (1797,)."""
    table = np.loadtxt(_file(), delimiter=",", dtype=np.float32)
    return table[:, :64].reshape(-1, 1, 8, 8), table[:, 64].astype(np.int64)


def split() -> dict[str, npt.NDArray[np.int64]]:
    """Return the image numbers of each part: the same for all seeds.

    Neighbouring images are by the same writers, so they are shuffled before they are divided.
    """
    order = np.random.default_rng(0).permutation(TRAIN + VALIDATION + TEST)
    train, validation, test = np.split(order, [TRAIN, TRAIN + VALIDATION])
    return {"train": train, "validation": validation, "test": test}


def _file() -> Path:
    """Return the file without importing scikit-learn, which takes a second."""
    specification = importlib.util.find_spec("sklearn")
    assert specification is not None
    assert specification.origin is not None
    return Path(specification.origin).parent / "datasets" / "data" / "digits.csv.gz"
