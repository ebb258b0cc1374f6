"""KITTI's stereo benchmarks of 2012 (Geiger et al.) and 2015 (Menze & Geiger).

Each has its archive unpacked in a folder of its own, of which the pairs with known disparities are
used::

    training/{colored_0,colored_1,disp_occ}/000000_10.png        # 2012
    training/{image_2,image_3,disp_occ_0}/000000_10.png          # 2015

Images that end in ``_11`` show the next moment, which has no disparities.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.data.description import listed
from harness.errors import RequestError
from tasks.psmnet.pairs import FETCH, PairFiles, Parts

LEARNING = 160
"""The first pairs; as the authors of PSMNet divide them, the others are the test part."""
HELD_OUT = 20
"""The last of those, which are for validation: neighbours may be of one drive."""


@dataclass(frozen=True)
class Benchmark:
    """Where a benchmark has its left and right images and its disparities."""

    left: str
    right: str
    disparity: str


BENCHMARKS = {
    "kitti2012": Benchmark("colored_0", "colored_1", "disp_occ"),
    "kitti2015": Benchmark("image_2", "image_3", "disp_occ_0"),
}


def find(folder: Path, benchmark: Benchmark) -> Parts[list[PairFiles]]:
    """Return the pairs with known disparities, ordered by their numbers.

    Raises:
        RequestError: there are too few, or a partner of one is missing.
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
    if len(pairs) <= LEARNING:
        raise RequestError(
            f"psmnet: {len(pairs)} disparities at {disparities / '*_10.png'}, "
            f"where {LEARNING} are trained on and the others tested; {FETCH}"
        )
    return Parts(
        pairs[: LEARNING - HELD_OUT], pairs[LEARNING - HELD_OUT : LEARNING], pairs[LEARNING:]
    )
