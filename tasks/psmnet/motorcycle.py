"""The motorcycle of the Middlebury stereo data of 2014 (Scharstein et al.), a real pair.

scikit-image ships it at a quarter of its size. It is halved once more, so that its disparities
are of 4 to 30 pixels.
"""

from __future__ import annotations

import importlib.util
import zipfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.errors import RequestError
from tasks.psmnet.formats import Picture, read_picture
from tasks.psmnet.pairs import Pair


def files() -> list[Path]:
    """Return the two images and the disparities, without importing scikit-image.

    Raises:
        RequestError: scikit-image is not installed.
    """
    specification = importlib.util.find_spec("skimage")
    if specification is None or specification.origin is None:
        raise RequestError("psmnet: the motorcycle belongs to scikit-image, which is not installed")
    folder = Path(specification.origin).parent / "data"
    names = ("motorcycle_left.png", "motorcycle_right.png", "motorcycle_disp.npz")
    return [folder / name for name in names]


def content() -> bytes:
    """Return the bytes of the three files.

    Raises:
        RequestError: a file is missing.
    """
    try:
        return b"".join(path.read_bytes() for path in files())
    except OSError as error:
        raise RequestError(f"psmnet: cannot read {error.filename}: {error.strerror}") from None


def load() -> Pair:
    """Return the pair (250, 370), its unknown disparities 0.

    Raises:
        RequestError: a file is missing or damaged.
    """
    left, right, disparities = files()
    try:
        with disparities.open("rb") as file, np.load(file) as archive:
            known = np.nan_to_num(archive["arr_0"], posinf=0)
    except FileNotFoundError as error:
        raise RequestError(f"psmnet: cannot read {disparities}: {error.strerror}") from None
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise RequestError(f"psmnet: {disparities} is damaged: {error}") from None
    # A mean over an edge would be the disparity of neither side.
    disparity = (known[::2, :740:2] / 2).astype(np.float32)
    return Pair(_halved(read_picture(left)), _halved(read_picture(right)), disparity)


def _halved(picture: Picture) -> Picture:
    """Return the means of 2x2 pixels; an odd column is left out."""
    height, width = (side // 2 for side in picture.shape[:2])
    squares = picture[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3)
    means: npt.NDArray[np.float64] = squares.mean((1, 3))
    return means.round().astype(np.uint8)
