"""Which frames there are, and the parts into which they are divided."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from harness.data.cache import cache_folder
from harness.data.description import DataDescription
from harness.data.download import require_checksum
from harness.errors import RequestError
from tasks.nyu import labelled, rooms
from tasks.nyu.frames import SingleFrames
from tasks.nyu.parts import Collection, Part, decoded_parts
from tasks.nyu.pretrained import require_weights

OFFICIAL_MD5: Mapping[str, str] = {
    labelled.FRAMES: "520609c519fba3ba5ac58c8fefcc3530",
    labelled.SPLIT: "08e3c3aea27130ac7c01ffd739a4535f",
}
"""The labelled part of NYU Depth v2: 1,449 frames, 795 of them for training."""

VALIDATION_SHARE = 0.1
"""Of the training frames, at least; whole scenes."""

CACHE_VERSION = 2
"""Raised when frames are decoded otherwise."""


def describe(profile: str, settings: Mapping[str, Any], data_folder: Path) -> DataDescription:
    """Return what the data are.

    The setting ``frames`` asks for ``rooms``, which are rendered here; for ``labelled``, the
    official files in the folder ``nyu`` of the data folder; or for ``single``, the frames with a
    file each in the folder ``nyu/nyudepthv2`` there. No checksum tells these from other pictures
    in that format, so that they count as real, but not as official. An encoder's published weights
    have to lie in the folder ``nyu``, too.

    Raises:
        RequestError: a file is missing or not the official one.
    """
    folder = data_folder / "nyu"
    description = _frames(settings, folder)
    if settings["init"] == "pretrained":
        require_weights(settings["encoder"], folder)
    return description


def _frames(settings: Mapping[str, Any], folder: Path) -> DataDescription:
    match settings["frames"]:
        case "rooms":
            count, views = settings["rooms"], settings["views"]
            name = f"rendered rooms ({count} of {views} views); not NYU Depth v2"
            return DataDescription("synthetic", name, rooms.fingerprint(count, views))
        case "labelled":
            for file, md5 in OFFICIAL_MD5.items():
                require_checksum(folder / file, md5, "nyu", note=True)
            fingerprint = hashlib.sha256(" ".join(OFFICIAL_MD5.values()).encode()).hexdigest()
            return DataDescription("official", "NYU Depth v2, labelled", fingerprint)
        case _:
            found = SingleFrames(folder / "nyudepthv2")
            name = f"{len(found.scenes)} single frames in the format of NYU Depth v2"
            return DataDescription("real", name, found.fingerprint(), "NYU Depth v2")


def read(settings: Mapping[str, Any], data_folder: Path) -> dict[str, Part]:
    """Return the parts train, validation and test, decoded into the cache folder if need be.

    Raises:
        RequestError: a file is missing or damaged, or the cache folder cannot be written.
    """
    key = describe("", settings, data_folder).sha256
    if settings["frames"] == "single":
        key = SingleFrames(data_folder / "nyu" / "nyudepthv2").key()
    cache = cache_folder() / "nyu" / f"decoded-{CACHE_VERSION}-{key[:16]}"
    return decoded_parts(cache, partial(_opened, settings, data_folder / "nyu"))


@contextmanager
def _opened(settings: Mapping[str, Any], folder: Path) -> Iterator[Collection]:
    match settings["frames"]:
        case "rooms":
            with tempfile.TemporaryDirectory() as temporary:
                rooms.write(Path(temporary), settings["rooms"], settings["views"])
                yield _single(Path(temporary))
        case "labelled":
            frames = labelled.LabelledFrames(folder / labelled.FRAMES)
            split = labelled.official_split(folder / labelled.SPLIT, len(frames.scenes))
            yield Collection(frames, parts(*split, frames.scenes))
        case _:
            yield _single(folder / "nyudepthv2")


def _single(folder: Path) -> Collection:
    frames = SingleFrames(folder)
    return Collection(frames, parts(*frames.split(), frames.scenes))


def parts(
    train: Sequence[int], test: Sequence[int], scenes: Sequence[str]
) -> dict[str, Sequence[int]]:
    """Cut whole scenes off the training frames for validation: the same for all seeds.

    Frames of one scene look alike, so that a network would know what it is validated on.

    Args:
        train: numbers of frames.
        test: numbers of frames.
        scenes: the scene of every frame.

    Raises:
        RequestError: the training frames are of a single scene.
    """
    names = {scenes[number] for number in train}
    if len(names) < 2:
        raise RequestError(f"nyu: the training frames are of {len(names)} scene; 2 are needed")
    validation: set[int] = set()
    for name in sorted(
        names, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    ):
        if len(validation) >= VALIDATION_SHARE * len(train):
            break
        validation |= {number for number in train if scenes[number] == name}
    return {
        "train": [number for number in train if number not in validation],
        "validation": sorted(validation),
        "test": test,
    }
