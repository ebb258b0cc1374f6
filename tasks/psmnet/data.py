"""The pairs of this task, and what they are."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.data.description import DataDescription
from harness.errors import RequestError
from tasks.psmnet import kitti, motorcycle, sceneflow, scenes
from tasks.psmnet.pairs import PairFiles, Pairs, PairsOnDisk, Parts

FOLDERS = {"sceneflow": "SceneFlow", "kitti2012": "Kitti2012", "kitti2015": "Kitti2015"}
"""Of the official data sets, below the folder ``psmnet`` of the data folder."""

TITLES = {
    "sceneflow": "SceneFlow, clean pass",
    "kitti2012": "KITTI stereo 2012",
    "kitti2015": "KITTI stereo 2015",
}


def describe(profile: str, settings: Mapping[str, Any], data_folder: Path) -> DataDescription:
    """Return what the data are.

    The fingerprint of rendered scenes is that of the code that renders them, since rendering
    takes seconds. That of official data is of the names and lengths of their files, which are
    looked at in their first and last bytes only: the whole of SceneFlow has 270 GB.

    Raises:
        RequestError: a file is missing, truncated or of another format, or there are too few.
    """
    name = settings["dataset"]
    if name == "scenes":
        if settings["training_scenes"] < sceneflow.HELD_OUT:
            raise RequestError(
                f"psmnet: training_scenes={settings['training_scenes']}: is less than "
                f"{sceneflow.HELD_OUT}, of which one is for validation"
            )
        content = Path(scenes.__file__).read_bytes() + motorcycle.content()
        counts = f"{settings['training_scenes']} {settings['test_scenes']}"
        return DataDescription(
            "synthetic",
            "rendered layers (SceneFlow format), and Middlebury's motorcycle as a further test",
            hashlib.sha256(counts.encode() + content).hexdigest(),
        )
    folder = data_folder / "psmnet" / FOLDERS[name]
    parts = _find(name, folder)
    fingerprint = _fingerprint(folder, [*parts.training, *parts.validation, *parts.test])
    return DataDescription("official", TITLES[name], fingerprint)


def read(settings: Mapping[str, Any], data_folder: Path) -> Parts[Pairs]:
    """Return the pairs of the setting ``dataset``; official ones are read when they are used.

    Raises:
        RequestError: a file is missing, truncated or of another format.
    """
    name = settings["dataset"]
    if name == "scenes":
        return _rendered(settings["training_scenes"], settings["test_scenes"])
    parts = _find(name, data_folder / "psmnet" / FOLDERS[name])
    return Parts(
        PairsOnDisk(parts.training), PairsOnDisk(parts.validation), PairsOnDisk(parts.test)
    )


def _rendered(training: int, test: int) -> Parts[Pairs]:
    """Return rendered scenes, having gone through files in the format of SceneFlow."""
    with tempfile.TemporaryDirectory() as folder:
        scenes.write(Path(folder), training, test)
        parts = sceneflow.find_flying_things(Path(folder))
        return Parts(
            [pair.load() for pair in parts.training],
            [pair.load() for pair in parts.validation],
            [pair.load() for pair in parts.test],
        )


def _find(name: str, folder: Path) -> Parts[list[PairFiles]]:
    if name == "sceneflow":
        return sceneflow.find(folder)
    return kitti.find(folder, kitti.BENCHMARKS[name])


def _fingerprint(folder: Path, pairs: Iterable[PairFiles]) -> str:
    """Check the files and return a hash of their names and lengths."""
    digest = hashlib.sha256()
    for pair in pairs:
        pair.check()
        for path in (pair.left, pair.right, pair.disparity):
            line = f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
