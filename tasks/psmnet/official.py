"""The official stereo data sets: where their files lie, and how they are divided.

SceneFlow (Mayer et al., arXiv:1512.02134) has three subsets of rendered films. Each lies in a
folder of its name, where its two archives are unpacked::

    FlyingThings3D/frames_cleanpass/{TRAIN,TEST}/{A,B,C}/0000/{left,right}/0006.png
    Monkaa/frames_cleanpass/<scene>/{left,right}/0000.png
    Driving/frames_cleanpass/<focal length>/<scene>/<speed>/{left,right}/0001.png

The disparities have the same paths below ``disparity``, with the suffix ``.pfm``.

KITTI's stereo benchmarks of 2012 (Geiger et al.) and 2015 (Menze & Geiger) each have a folder with
their unpacked archive. The pairs with known disparities are used::

    training/{colored_0,colored_1,disp_occ}/000000_10.png        # 2012
    training/{image_2,image_3,disp_occ_0}/000000_10.png          # 2015

Images that end in ``_11`` show the next moment, which has no disparities.
"""

from __future__ import annotations

from collections.abc import Iterable, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from harness.data.description import listed
from harness.errors import RequestError
from tasks.psmnet.formats import PairFiles

P = TypeVar("P", bound=Sized)

FETCH = "python -m harness data fetch psmnet says where to get them"
"""The end of a complaint about missing official files."""


@dataclass(frozen=True)
class Parts(Generic[P]):
    """Pairs for training, for validation during training, and for the final test."""

    training: P
    validation: P
    test: P


# SceneFlow

FILMS_PER_VALIDATION_FILM = 20
"""One training film of FlyingThings3D out of so many is for validation."""

Film = list[PairFiles]


def find_sceneflow(folder: Path) -> Parts[list[PairFiles]]:
    """Return the pairs of all three subsets, ordered by their paths.

    The test part is that of FlyingThings3D. The validation part consists of whole films of its
    training part.

    Raises:
        RequestError: a subset, or the partner of an image, is missing.
    """
    parts = find_flying_things(folder / "FlyingThings3D")
    monkaa = _films(folder / "Monkaa", "*")
    driving = _films(folder / "Driving", "*/*/*")
    return Parts(
        [*parts.training, *_joined(monkaa), *_joined(driving)], parts.validation, parts.test
    )


def find_flying_things(folder: Path) -> Parts[list[PairFiles]]:
    """Return the pairs of FlyingThings3D alone.

    Raises:
        RequestError: as for `find_sceneflow`.
    """
    films = _films(folder, "TRAIN/*/*")
    if len(films) < FILMS_PER_VALIDATION_FILM:
        raise RequestError(
            f"psmnet: {len(films)} training films in {folder}; at least "
            f"{FILMS_PER_VALIDATION_FILM} are needed, one of them for validation"
        )
    validation = films[FILMS_PER_VALIDATION_FILM - 1 :: FILMS_PER_VALIDATION_FILM]
    training = [film for number, film in enumerate(films, 1) if number % FILMS_PER_VALIDATION_FILM]
    test = _films(folder, "TEST/*/*")
    return Parts(_joined(training), _joined(validation), _joined(test))


def _films(subset: Path, pattern: str) -> list[Film]:
    """Return the pairs of each film of a subset."""
    frames = subset / "frames_cleanpass"
    folders = [path.parent for path in listed(frames, f"{pattern}/left")]
    if not folders:
        raise RequestError(f"psmnet: no images at {frames / pattern / 'left'}; {FETCH}")
    return [_film(subset, folder.relative_to(frames)) for folder in folders]


def _film(subset: Path, name: Path) -> Film:
    frames, disparities = subset / "frames_cleanpass" / name, subset / "disparity" / name / "left"
    lefts = listed(frames / "left", "*.png")
    if not lefts:
        raise RequestError(f"psmnet: no images at {frames / 'left' / '*.png'}; {FETCH}")
    rights = {path.name for path in (frames / "right").glob("*.png")}
    known = {path.stem for path in disparities.glob("*.pfm")}
    for left in lefts:
        if left.name not in rights:
            raise RequestError(f"psmnet: {left} has no partner {frames / 'right' / left.name}")
        if left.stem not in known:
            raise RequestError(f"psmnet: {left} has no disparity {disparities / left.stem}.pfm")
    return [
        PairFiles(left, frames / "right" / left.name, disparities / f"{left.stem}.pfm")
        for left in lefts
    ]


def _joined(films: Iterable[Film]) -> list[PairFiles]:
    return [pair for film in films for pair in film]


# KITTI

KITTI_TRAINING, KITTI_VALIDATION = 140, 20
"""Numbers of pairs, which come in this order; the others are the test part.

The authors of PSMNet train on the first 160. Neighbours may be of the same drive, so the last of
these are for validation. Of fewer pairs than the published ones, seven tenths are for training and
one for validation.
"""
FEWEST_KITTI_PAIRS = 4
"""So that each part has one."""


@dataclass(frozen=True)
class Benchmark:
    """The folders of left images, right images and disparities."""

    left: str
    right: str
    disparity: str
    pairs: int
    """Published pairs with known disparities."""


BENCHMARKS = {
    "kitti2012": Benchmark("colored_0", "colored_1", "disp_occ", 194),
    "kitti2015": Benchmark("image_2", "image_3", "disp_occ_0", 200),
}


def find_kitti(folder: Path, benchmark: Benchmark, accept: str) -> Parts[list[PairFiles]]:
    """Return the pairs with known disparities, ordered by number.

    Args:
        folder: the folder of the benchmark.
        benchmark: which one it is.
        accept: ``unofficial`` accepts fewer pairs than the published ones.

    Raises:
        RequestError: there are too few pairs, or an image is missing.
    """
    lefts, rights, disparities = (
        folder / "training" / name
        for name in (benchmark.left, benchmark.right, benchmark.disparity)
    )
    pairs = [
        PairFiles(lefts / path.name, rights / path.name, path)
        for path in listed(disparities, "*_10.png")
    ]
    for pair in pairs:
        for path in (pair.left, pair.right):
            if not path.exists():
                raise RequestError(f"psmnet: {pair.disparity} has no image {path}")
    count = len(pairs)
    there = f"psmnet: {count} of {benchmark.pairs} disparities at {disparities / '*_10.png'}"
    if count == benchmark.pairs:
        training, validation = KITTI_TRAINING, KITTI_VALIDATION
    elif accept == "official":
        otherwise = ""
        if count >= FEWEST_KITTI_PAIRS:
            otherwise = ", or --set accept=unofficial uses those that are there"
        raise RequestError(f"{there}; {FETCH}{otherwise}")
    elif count < FEWEST_KITTI_PAIRS:
        raise RequestError(f"{there}; at least {FEWEST_KITTI_PAIRS} are needed")
    else:
        training, validation = 7 * count // 10, max(1, count // 10)
    seen = training + validation
    return Parts(pairs[:training], pairs[training:seen], pairs[seen:])
