"""The pairs of this task: rendered scenes with a real test pair, or an official data set."""

from __future__ import annotations

import hashlib
import importlib.util
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.data.description import DataDescription
from harness.errors import RequestError
from tasks.psmnet import official, scenes
from tasks.psmnet.formats import Pair, PairFiles, Pairs, PairsOnDisk, Picture, read_picture
from tasks.psmnet.official import Parts
from tasks.psmnet.settings import StereoSettings

FOLDERS = {"sceneflow": "SceneFlow", "kitti2012": "Kitti2012", "kitti2015": "Kitti2015"}
"""Folders of the official data sets in the folder ``psmnet`` of the data folder."""

TITLES = {
    "sceneflow": "SceneFlow, clean pass",
    "kitti2012": "KITTI stereo 2012",
    "kitti2015": "KITTI stereo 2015",
}


def describe(profile: str, settings: StereoSettings, data_folder: Path) -> DataDescription:
    """Describe the data.

    The fingerprint of rendered scenes is a hash of the code that renders them, since rendering
    takes seconds. The fingerprint of official data is a hash of the names and lengths of their
    files, of which only the first and last bytes are read: SceneFlow has 270 GB.

    Raises:
        RequestError: a file is missing, truncated or of another format, or there are too few.
    """
    name = settings.dataset
    if name == "scenes":
        if settings.training_scenes < official.FILMS_PER_VALIDATION_FILM:
            raise RequestError(
                f"psmnet: training_scenes={settings.training_scenes} is less than "
                f"{official.FILMS_PER_VALIDATION_FILM}, of which one is for validation"
            )
        content = Path(scenes.__file__).read_bytes() + motorcycle_content()
        counts = f"{settings.training_scenes} {settings.test_scenes}"
        return DataDescription(
            "synthetic",
            "rendered layers (SceneFlow format), and Middlebury's motorcycle as a further test",
            hashlib.sha256(counts.encode() + content).hexdigest(),
        )
    folder = data_folder / "psmnet" / FOLDERS[name]
    parts = _find(name, folder, settings.accept)
    pairs = [*parts.training, *parts.validation, *parts.test]
    fingerprint = _fingerprint(folder, pairs)
    benchmark = official.BENCHMARKS.get(name)
    if benchmark is not None and len(pairs) != benchmark.pairs:
        title = f"{TITLES[name]}, {len(pairs)} of {benchmark.pairs} pairs"
        return DataDescription("unofficial", title, fingerprint)
    return DataDescription("official", TITLES[name], fingerprint)


def read(settings: StereoSettings, data_folder: Path) -> Parts[Pairs]:
    """Return the pairs of the setting ``dataset``; official pairs are read when they are used.

    Raises:
        RequestError: a file is missing, truncated or of another format.
    """
    name = settings.dataset
    if name == "scenes":
        return _rendered(settings.training_scenes, settings.test_scenes)
    parts = _find(name, data_folder / "psmnet" / FOLDERS[name], settings.accept)
    return Parts(
        PairsOnDisk(parts.training), PairsOnDisk(parts.validation), PairsOnDisk(parts.test)
    )


def _rendered(training: int, test: int) -> Parts[Pairs]:
    """Return rendered scenes, written to files in the format of SceneFlow and read again."""
    with tempfile.TemporaryDirectory() as folder:
        scenes.write(Path(folder), training, test)
        parts = official.find_flying_things(Path(folder))
        return Parts(
            [pair.load() for pair in parts.training],
            [pair.load() for pair in parts.validation],
            [pair.load() for pair in parts.test],
        )


def _find(name: str, folder: Path, accept: str) -> Parts[list[PairFiles]]:
    if name == "sceneflow":
        return official.find_sceneflow(folder)
    return official.find_kitti(folder, official.BENCHMARKS[name], accept)


def _fingerprint(folder: Path, pairs: Iterable[PairFiles]) -> str:
    """Check the files and return a hash of their names and lengths."""
    digest = hashlib.sha256()
    for pair in pairs:
        pair.check()
        for path in (pair.left, pair.right, pair.disparity):
            line = f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


# Middlebury's motorcycle (Scharstein et al. 2014), a real pair that scikit-image ships


def motorcycle_files() -> list[Path]:
    """Return the two images and the disparities, without importing scikit-image.

    Raises:
        RequestError: scikit-image is not installed.
    """
    specification = importlib.util.find_spec("skimage")
    if specification is None or specification.origin is None:
        raise RequestError("psmnet: the motorcycle comes with scikit-image, which is not installed")
    folder = Path(specification.origin).parent / "data"
    names = ("motorcycle_left.png", "motorcycle_right.png", "motorcycle_disp.npz")
    return [folder / name for name in names]


def motorcycle_content() -> bytes:
    """Return the bytes of the three files.

    Raises:
        RequestError: a file is missing.
    """
    try:
        return b"".join(path.read_bytes() for path in motorcycle_files())
    except OSError as error:
        raise RequestError(f"psmnet: cannot read {error.filename}: {error.strerror}") from None


def motorcycle() -> Pair:
    """Return the pair (250, 370), with 0 for unknown disparities.

    scikit-image ships it at a quarter of its size. It is halved once more, so that its disparities
    are between 4 and 30 pixels.

    Raises:
        RequestError: a file is missing or damaged.
    """
    left, right, disparities = motorcycle_files()
    try:
        with disparities.open("rb") as file, np.load(file) as archive:
            known = np.nan_to_num(archive["arr_0"], posinf=0)
    except FileNotFoundError as error:
        raise RequestError(f"psmnet: cannot read {disparities}: {error.strerror}") from None
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise RequestError(f"psmnet: {disparities} is damaged: {error}") from None
    # Not a mean, which would be the disparity of neither side at an edge.
    disparity = (known[::2, :740:2] / 2).astype(np.float32)
    return Pair(_halved(read_picture(left)), _halved(read_picture(right)), disparity)


def _halved(picture: Picture) -> Picture:
    """Return the means of 2x2 pixels, without an odd last row or column."""
    height, width = (side // 2 for side in picture.shape[:2])
    squares = picture[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3)
    means: npt.NDArray[np.float64] = squares.mean((1, 3))
    return means.round().astype(np.uint8)
