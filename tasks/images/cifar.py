"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) in their Python format."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from harness.data.decoded import Save
from harness.data.download import require_checksum
from harness.errors import RequestError

MD5: Mapping[str, Mapping[str, str]] = {
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
"""The official files of both, by the folder that the archive unpacks to."""

_DAMAGED = (OSError, EOFError, KeyError, RuntimeError, ValueError, pickle.UnpicklingError)
"""What torchvision raises for files that are not as they should be."""


def verify(folder: Path, name: str) -> str:
    """Return a fingerprint of the official files, without reading what is in them.

    Args:
        folder: of the task, in the data folder.
        name: of the folder with the files in it.

    Raises:
        RequestError: a file is missing, or is not the official one.
    """
    for file, expected in MD5[name].items():
        require_checksum(folder / name / file, expected, folder.name)
    return hashlib.sha256(" ".join(MD5[name].values()).encode()).hexdigest()


def decode(folder: Path, save: Save, name: str) -> None:
    """Read the pickles through torchvision, which looks at the checksums again before it does.

    Raises:
        RequestError: a file is not as it should be.
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
                f"{len(data.targets)} labels for {part}, which do not pair"
            )
        save(f"{part}_images", pixels.__getitem__, range(len(pixels)))
        save(f"{part}_labels", np.int64, data.targets)
