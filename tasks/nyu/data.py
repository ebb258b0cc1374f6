"""The frames of the task and its three parts, decoded into arrays on disk.

A frame is kept at half its resolution, by every second pixel, because the published networks see
that. Depths of validation and test frames stay whole, since the official protocol compares all of
their pixels.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from harness.data.cache import cache_folder
from harness.data.decoded import Save, decoded
from harness.data.description import DataDescription
from harness.data.download import require_checksum
from harness.data.official import identify
from harness.errors import RequestError
from tasks.nyu import rooms
from tasks.nyu.readers import LabelledFrames, SingleFrames, official_split
from tasks.nyu.settings import FILES, FRAMES, SPLIT, WEIGHTS, DepthSettings

VALIDATION_SHARE = 0.1
"""The least share of the training frames that is for validation, in whole scenes."""

PUBLISHED_FRAMES = 1449
"""Labelled frames."""

CACHE_VERSION = 2
"""Increased when frames are decoded differently."""

HALF = np.s_[..., ::2, ::2]
"""Every second pixel of maps, as published: 240x320 of 480x640."""

PARTS = ("train", "validation", "test")


class Frames(Protocol):
    """Frames as a reader returns them."""

    @property
    def scenes(self) -> Sequence[str]:
        """The scene of each frame."""

    def image(self, number: int) -> npt.NDArray[np.uint8]:
        """Return the image (3, height, width) of a frame."""

    def depth(self, number: int) -> npt.NDArray[np.float32]:
        """Return the depth (height, width) of a frame in metres, 0 where unknown."""


@dataclass(frozen=True)
class Collection:
    """Frames, and the numbers of the frames in each of the `PARTS`."""

    frames: Frames
    parts: Mapping[str, Sequence[int]]


class Part(NamedTuple):
    """Decoded frames: (frames, 3, height / 2, width / 2), and their depths in metres."""

    images: npt.NDArray[np.uint8]
    depths: npt.NDArray[np.float32]
    """Half the resolution for training, full resolution otherwise; 0 where unknown."""


def describe(profile: str, settings: DepthSettings, data_folder: Path) -> DataDescription:
    """Describe the data.

    The setting ``frames`` selects them: ``rooms`` are rendered here; ``labelled`` are the official
    files in the folder ``nyu`` of the data folder; ``single`` are frames with a file each in its
    folder ``nyu/nyudepthv2``. No checksum identifies the latter, so they count as real but not as
    official. The published weights of an encoder belong in the folder ``nyu``, too.

    Raises:
        RequestError: a file is missing, or differs from the official one and is not accepted, or
            unofficial frames are not complete.
    """
    folder = data_folder / "nyu"
    description = _frames(settings, folder)
    if settings.init == "pretrained":
        require_weights(settings.encoder, folder)
    return description


def require_weights(encoder: str, folder: Path) -> Path:
    """Return the file of an encoder's published weights.

    Args:
        encoder: ``resnet18`` or ``resnet50``.
        folder: the folder of the file.

    Raises:
        RequestError: the file is missing, or differs from the published one.
    """
    name = WEIGHTS[encoder]
    _, checksum = FILES[name]
    require_checksum(folder / name, checksum, "nyu")
    return folder / name


def _frames(settings: DepthSettings, folder: Path) -> DataDescription:
    match settings.frames:
        case "rooms":
            count, views = settings.rooms, settings.views
            name = f"rendered rooms ({count} of {views} views); not NYU Depth v2"
            return DataDescription("synthetic", name, rooms.fingerprint(count, views))
        case "labelled":
            checksums = {file: FILES[file][1] for file in (FRAMES, SPLIT)}
            source, fingerprint = identify(folder, checksums, "nyu", settings.accept, note=True)
            other = ""
            if source == "unofficial":
                _require_complete(folder)
                other = ", other files"
            return DataDescription(source, f"NYU Depth v2, labelled{other}", fingerprint)
        case _:
            found = SingleFrames(folder / "nyudepthv2")
            name = f"{len(found.scenes)} single frames in the format of NYU Depth v2"
            return DataDescription("real", name, found.fingerprint(), "NYU Depth v2")


def _require_complete(folder: Path) -> None:
    count = len(LabelledFrames(folder / FRAMES).scenes)
    if count != PUBLISHED_FRAMES:
        raise RequestError(
            f"nyu: {folder / FRAMES} has {count:,} frames, not {PUBLISHED_FRAMES:,}: "
            "the data are not complete"
        )
    train, test = official_split(folder / SPLIT, count)
    if len(train) + len(test) != count:
        raise RequestError(f"nyu: {folder / SPLIT} does not divide all {count:,} frames")


def read(settings: DepthSettings, data_folder: Path) -> dict[str, Part]:
    """Return the parts train, validation and test, decoded into the cache folder on first use.

    Raises:
        RequestError: a file is missing or damaged, or the cache folder cannot be written.
    """
    key = describe("", settings, data_folder).sha256
    if settings.frames == "single":
        key = SingleFrames(data_folder / "nyu" / "nyudepthv2").key()
    cache = cache_folder() / "nyu" / f"decoded-{CACHE_VERSION}-{key[:16]}"
    return decoded_parts(cache, partial(_opened, settings, data_folder / "nyu"))


@contextmanager
def _opened(settings: DepthSettings, folder: Path) -> Iterator[Collection]:
    match settings.frames:
        case "rooms":
            with tempfile.TemporaryDirectory() as temporary:
                rooms.write(Path(temporary), settings.rooms, settings.views)
                yield _single(Path(temporary))
        case "labelled":
            frames = LabelledFrames(folder / FRAMES)
            split = official_split(folder / SPLIT, len(frames.scenes))
            yield Collection(frames, parts(*split, frames.scenes))
        case _:
            yield _single(folder / "nyudepthv2")


def _single(folder: Path) -> Collection:
    frames = SingleFrames(folder)
    return Collection(frames, parts(*frames.split(), frames.scenes))


def parts(
    train: Sequence[int], test: Sequence[int], scenes: Sequence[str]
) -> dict[str, Sequence[int]]:
    """Take whole scenes from the training frames for validation, the same for all seeds.

    Frames of one scene look alike: a network would recognise validation frames of a scene that
    it was trained on.

    Args:
        train: numbers of the training frames.
        test: numbers of the test frames.
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


def decoded_parts(
    folder: Path, opened: Callable[[], AbstractContextManager[Collection]]
) -> dict[str, Part]:
    """Return the parts of a collection, decoding it if the folder does not exist.

    Args:
        folder: the folder of the arrays.
        opened: opens the collection.

    Raises:
        RequestError: a frame is damaged, or the folder is damaged or cannot be written.
    """

    def decode(save: Save) -> None:
        with opened() as collection:
            frames = collection.frames
            for name, numbers in collection.parts.items():
                halved = name == "train"
                save(f"{name}/images", lambda n: frames.image(n)[HALF], numbers)
                save(
                    f"{name}/depths",
                    (lambda n: frames.depth(n)[HALF]) if halved else frames.depth,
                    numbers,
                )

    names = [f"{part}/{field}" for part in PARTS for field in Part._fields]
    arrays = decoded(folder, names, decode)
    return {part: Part(*(arrays[f"{part}/{field}"] for field in Part._fields)) for part in PARTS}
