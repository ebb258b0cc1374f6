"""A user's folder of images, one subfolder for each class, or drawings without one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.data.cache import cache_folder
from harness.data.decoded import Array, Save, decoded
from harness.data.description import DataDescription, is_hidden, listed, located
from harness.errors import RequestError, nearest
from tasks.images import drawings
from tasks.images.data import Part
from tasks.images.settings import FolderSettings

PART_FOLDERS: Mapping[Part, Sequence[str]] = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test",),
}
"""The names that the folder of a part may have."""

SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)

SHARES: Mapping[Part, float] = {"test": 0.2, "validation": 0.1}
"""The share of each class's images that is split off for a part without a folder."""

DRAWN_CLASSES = 5
DRAWN_NOISE = 0.25
"""Standard deviation of the noise in drawings, of 1."""

Numbers = Mapping[Part, npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Folder:
    """The images of a folder, and how they are divided."""

    root: Path
    names: Sequence[str]
    """Of the classes."""
    files: Sequence[Path]
    labels: npt.NDArray[np.int64]
    """The class of each file."""
    numbers: Numbers
    """The files of each part."""
    division: str
    """How the files are divided among the parts, in words."""

    def describe(self) -> DataDescription:
        """Describe the images; the fingerprint covers classes, contents and parts."""
        whole = hashlib.sha256()
        for part, numbers in self.numbers.items():
            whole.update(f"{part}\n".encode())
            for number in numbers:
                whole.update(f"{self.names[self.labels[number]]}\n".encode())
                with self.files[number].open("rb") as file:
                    whole.update(hashlib.file_digest(file, "sha256").digest())
        counts = ", ".join(f"{len(numbers)} {part}" for part, numbers in self.numbers.items())
        return DataDescription(
            "real",
            f"images of {self.root.resolve().name} in {len(self.names)} classes "
            f"({counts}; {self.division})",
            whole.hexdigest(),
        )

    def decode(self, side: int, save: Save) -> None:
        """Save the images as squares, and their labels.

        Args:
            side: pixels of a side.
            save: takes the arrays.

        Raises:
            RequestError: a file is no image, or is damaged.
        """
        save("images", partial(_square, side=side), self.files)
        save("labels", np.int64, self.labels.tolist())


def describe(profile: str, settings: FolderSettings, data_folder: Path) -> DataDescription:
    """Describe the data.

    Raises:
        RequestError: the folder is missing, or has too few classes or images.
    """
    if settings.folder == "drawn":
        count, side, seed = settings.drawn_images, settings.resolution, settings.split_seed
        if count < (least := 3 * DRAWN_CLASSES):
            raise RequestError(f"images: drawn_images={count} is too few: at least {least}")
        text = f"{drawings.VERSION} {DRAWN_CLASSES} {DRAWN_NOISE} {count} {side} {seed}"
        return DataDescription(
            "synthetic",
            f"drawings of {DRAWN_CLASSES} shapes",
            hashlib.sha256(f"folder of drawings {text}".encode()).hexdigest(),
        )
    return find(settings, data_folder).describe()


def read(
    settings: FolderSettings, data_folder: Path
) -> tuple[Mapping[str, Array], Numbers, Sequence[str]]:
    """Return images and labels, the numbers of the images in each part, and the classes' names.

    Raises:
        RequestError: as for `describe`, or a file is no image.

    Returns:
        The arrays ``images`` (count, 3, side, side), from 0 to 255, and ``labels`` (count,); which
        of them belong to each part; and the names of the classes.
    """
    if settings.folder == "drawn":
        names = list(drawings.SHAPES)[:DRAWN_CLASSES]
        images, labels = _drawn(settings)
        numbers = _split(labels, names, settings.split_seed, "drawings")
        return {"images": images, "labels": labels}, numbers, names
    found = find(settings, data_folder)
    side = settings.resolution
    cache = cache_folder() / "images" / f"decoded-{found.describe().sha256[:16]}-{side}"
    arrays = decoded(cache, ("images", "labels"), partial(found.decode, side))
    return arrays, found.numbers, found.names


def find(settings: FolderSettings, data_folder: Path) -> Folder:
    """Return the images of the folder that the setting ``folder`` names.

    If it has a subfolder ``train``, its other parts are the subfolders ``val`` and ``test``. If
    there is only one of these two, it is the test. Parts without a folder are split off the
    training images, the same share of each class.

    Raises:
        RequestError: there is no such folder, or it has too few classes or images.
    """
    root = located(settings.folder, data_folder)
    if root is None or not root.is_dir():
        raise RequestError(
            f"images: folder={settings.folder} is not a folder, here or in {data_folder}"
            f"{nearest(settings.folder, ['drawn'])}"
        )
    folders = _parts(root)
    by_part = {part: _images_by_class(folder) for part, folder in folders.items()}
    names = sorted({name for classes in by_part.values() for name in classes})
    if not names:
        raise RequestError(
            f"images: folder={settings.folder} has no images: it needs a folder for each class, "
            f"with files such as {', '.join(sorted(SUFFIXES)[2:6])}"
        )
    if len(names) == 1:
        raise RequestError(
            f"images: folder={settings.folder} has one class, {names[0]!r}: it needs a folder for "
            "each of at least two"
        )
    files: list[Path] = []
    labels: list[int] = []
    numbers: dict[Part, npt.NDArray[np.int64]] = {}
    for part, classes in by_part.items():
        first = len(files)
        for label, name in enumerate(names):
            own = classes.get(name, [])
            if not own and part == "train":
                raise RequestError(f"images: the class {name!r} has no training images")
            files += own
            labels += [label] * len(own)
        numbers[part] = np.arange(first, len(files))
    every = np.array(labels, np.int64)
    numbers |= _split_off(every, numbers, names, settings.split_seed)
    ordered: Numbers = {part: numbers[part] for part in PART_FOLDERS}
    division = _division(folders, root, settings.split_seed)
    return Folder(root, names, files, every, ordered, division)


def _parts(root: Path) -> dict[Part, Path]:
    """Return the folders of the parts that have one; the folder itself for one without parts."""
    found: dict[Part, Path] = {}
    for part, names in PART_FOLDERS.items():
        for name in names:
            if (root / name).is_dir():
                found.setdefault(part, root / name)
    if "train" not in found:
        return {"train": root}
    if "validation" in found and "test" not in found:
        found["test"] = found.pop("validation")
    return found


def _images_by_class(folder: Path) -> dict[str, list[Path]]:
    classes = {
        each.name: [path for path in listed(each, "**/*") if path.suffix.lower() in SUFFIXES]
        for each in sorted(folder.iterdir())
        if each.is_dir() and not is_hidden(Path(each.name))
    }
    return {name: images for name, images in classes.items() if images}


def _split_off(
    labels: npt.NDArray[np.int64], numbers: Numbers, names: Sequence[str], seed: int
) -> Numbers:
    """Return the training images and the parts without a folder, which are split off them."""
    train = numbers["train"]
    wanted = [part for part in SHARES if part not in numbers]
    parts = _split(labels[train], names, seed, "training images", wanted)
    return {part: train[chosen] for part, chosen in parts.items()}


def _split(
    labels: npt.NDArray[np.int64],
    names: Sequence[str],
    seed: int,
    what: str,
    wanted: Sequence[Part] = tuple(SHARES),
) -> dict[Part, npt.NDArray[np.int64]]:
    """Divide images among the training part and others, the same share of each class.

    Args:
        labels: of the images.
        names: of the classes.
        seed: of the random order.
        what: the images are, for messages.
        wanted: the parts besides that for training; each gets an image of each class at least.

    Raises:
        RequestError: a class has too few images.
    """
    chosen: dict[Part, list[npt.NDArray[np.int64]]] = {"train": [], **{p: [] for p in wanted}}
    for label, name in enumerate(names):
        members = np.random.default_rng([seed, label]).permutation(np.flatnonzero(labels == label))
        if len(members) <= len(wanted):
            raise RequestError(
                f"images: the class {name!r} has {len(members)} {what}; "
                f"{len(wanted) + 1} parts need at least {len(wanted) + 1}"
            )
        of_class = len(members)
        for part in wanted:
            count = max(1, int(SHARES[part] * of_class))
            chosen[part].append(members[:count])
            members = members[count:]
        chosen["train"].append(members)
    return {part: np.sort(np.concatenate(each)) for part, each in chosen.items()}


def _division(folders: Mapping[Part, Path], root: Path, seed: int) -> str:
    if folders["train"] == root:
        return f"split by file with seed {seed}"
    text = "folders " + ", ".join(folder.name for folder in folders.values())
    if missing := [part for part in SHARES if part not in folders]:
        text += f", {' and '.join(missing)} split off train by file with seed {seed}"
    return text


def _square(path: Path, side: int) -> npt.NDArray[np.uint8]:
    """Return the middle of an image as a square (3, side, side), from 0 to 255."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise RequestError(f"images: {path} is no image that can be read: {reason}") from None
    fitted = ImageOps.fit(image, (side, side), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(fitted, np.uint8).transpose(2, 0, 1))


def _drawn(settings: FolderSettings) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    count, side = settings.drawn_images, settings.resolution
    return drawings.draw(count, DRAWN_CLASSES, side, DRAWN_NOISE, seed=0)
