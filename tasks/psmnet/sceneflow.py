"""SceneFlow (Mayer et al., arXiv:1512.02134): three subsets of rendered films, clean pass.

Each subset lies in a folder of its name, as its two archives unpack there::

    FlyingThings3D/frames_cleanpass/{TRAIN,TEST}/{A,B,C}/0000/{left,right}/0006.png
    Monkaa/frames_cleanpass/<scene>/{left,right}/0000.png
    Driving/frames_cleanpass/<focal length>/<scene>/<speed>/{left,right}/0001.png

and the disparities at the same places below ``disparity``, as ``.pfm``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness.data.description import listed
from harness.errors import RequestError
from tasks.psmnet.pairs import FETCH, PairFiles, Parts

HELD_OUT = 20
"""Of so many training films of FlyingThings3D, one is for validation."""

Film = list[PairFiles]


def find(folder: Path) -> Parts[list[PairFiles]]:
    """Return the pairs of all three subsets, ordered by their paths.

    The test part is that of FlyingThings3D, and the validation part is cut from its training part
    by films.

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
        RequestError: as `find`.
    """
    films = _films(folder, "TRAIN/*/*")
    if len(films) < HELD_OUT:
        raise RequestError(
            f"psmnet: {len(films)} training films in {folder}; {HELD_OUT} are the least, "
            "of which one is for validation"
        )
    validation = films[HELD_OUT - 1 :: HELD_OUT]
    training = [film for number, film in enumerate(films, 1) if number % HELD_OUT]
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
