"""Files of stereo data sets, single and in pairs: colour images, and disparities as PFM or PNG."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from harness.data.description import APPLE_DOUBLE
from harness.errors import RequestError

Picture = npt.NDArray[np.uint8]
"""Colours (height, width, 3)."""

Disparity = npt.NDArray[np.float32]
"""In pixels (height, width): x in the left image minus x in the right one; 0 is unknown."""

Kind = Literal["PFM of one channel", "8-bit RGB PNG", "16-bit grey PNG"]

KITTI_UNIT = np.float32(1 / 256)
"""Pixels of disparity per step of KITTI's 16-bit values."""

_PNG_BEGINNING = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_PNG_KINDS: dict[tuple[int, int], Kind] = {(8, 2): "8-bit RGB PNG", (16, 0): "16-bit grey PNG"}
"""The kinds of PNG by bits per sample and colour type."""
_DAMAGED = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error),
    Image.DecompressionBombError,
)
"""What Pillow raises for a damaged image, or for one that claims to be enormous."""
_HEADER_BYTES = 128
"""More than the length of any header."""


@dataclass(frozen=True)
class Header:
    """The header of a file."""

    kind: Kind
    height: int
    width: int
    byte_order: str = ">"
    length: int = 0
    """Bytes of the header of a PFM."""


def inspect(path: Path, *kinds: Kind) -> Header:
    """Return the header of a file, and check its length without reading all of it.

    Raises:
        RequestError: the file is missing, truncated or not of these kinds.
    """
    try:
        with path.open("rb") as file:
            beginning = file.read(_HEADER_BYTES)
            size = file.seek(0, 2)
            file.seek(max(size - len(_PNG_END), 0))
            end = file.read()
    except OSError as error:
        _refuse(path, f"cannot be read: {error.strerror}")
    if beginning.startswith(APPLE_DOUBLE):
        _refuse(path, "is a metadata file of macOS")
    is_png = path.suffix == ".png"
    header = _png_header(path, beginning) if is_png else _pfm_header(path, beginning)
    if header.kind not in kinds:
        _refuse(path, f"is a {header.kind}, not a {' or a '.join(kinds)}")
    if is_png and end != _PNG_END:
        _refuse(path, "is truncated")
    needed = header.length + 4 * header.width * header.height
    if not is_png and size != needed:
        _refuse(path, f"has {size} bytes; {header.width}x{header.height} numbers need {needed}")
    return header


def read_picture(path: Path) -> Picture:
    """Return a colour image.

    Raises:
        RequestError: the image is missing, damaged or not of 8-bit colours.
    """
    inspect(path, "8-bit RGB PNG")
    return _pixels(path).astype(np.uint8)


def read_disparity(path: Path) -> Disparity:
    """Return the disparities of a PFM or of one of KITTI's images.

    A PFM has its rows from the bottom up, and some releases have negative disparities for the left
    image. NaN and infinite values are unknown: SceneFlow has some, and Middlebury marks occluded
    pixels with them.

    Raises:
        RequestError: the file is missing, damaged or of another format.
    """
    header = inspect(path, "PFM of one channel", "16-bit grey PNG")
    if header.kind == "16-bit grey PNG":
        return _pixels(path).astype(np.float32) * KITTI_UNIT
    stored = np.fromfile(path, f"{header.byte_order}f4", offset=header.length)
    rows = np.abs(stored.reshape(header.height, header.width)[::-1])
    return np.where(np.isfinite(rows), rows, 0).astype(np.float32)


def write_picture(path: Path, picture: Picture) -> None:
    """Write a colour image as PNG."""
    Image.fromarray(picture).save(path)


def write_pfm(path: Path, disparity: Disparity) -> None:
    """Write disparities as a little-endian PFM."""
    height, width = disparity.shape
    header = f"Pf\n{width} {height}\n-1.0\n".encode("ascii")
    path.write_bytes(header + disparity[::-1].astype("<f4").tobytes())


def _pixels(path: Path) -> npt.NDArray[Any]:
    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except _DAMAGED as error:
        _refuse(path, f"is damaged: {error}")


def _png_header(path: Path, beginning: bytes) -> Header:
    """Read the signature and the IHDR chunk: width, height, bits per sample, colour type."""
    if not beginning.startswith(_PNG_BEGINNING) or len(beginning) < len(_PNG_BEGINNING) + 10:
        _refuse(path, "is not a PNG")
    width, height = np.frombuffer(beginning, ">u4", count=2, offset=len(_PNG_BEGINNING))
    bits, colour_type = beginning[len(_PNG_BEGINNING) + 8 :][:2]
    kind = _PNG_KINDS.get((bits, colour_type))
    if kind is None:
        _refuse(path, f"has {bits} bits and colour type {colour_type}: neither RGB nor disparity")
    return Header(kind, int(height), int(width))


def _pfm_header(path: Path, beginning: bytes) -> Header:
    """Read three lines: kind, width and height, and a scale, which is negative if little-endian."""
    lines = beginning.split(b"\n", 3)[:3]
    try:
        width, height = map(int, lines[1].split())
        scale = float(lines[2])
    except (ValueError, IndexError):
        width = height = scale = 0
    if (
        lines[0].strip() != b"Pf"
        or min(width, height) < 1
        or scale in (0, math.inf, -math.inf)
        or math.isnan(scale)
    ):
        _refuse(path, "is not a PFM of one channel")
    length = sum(len(line) + 1 for line in lines)
    return Header("PFM of one channel", height, width, "<" if scale < 0 else ">", length)


def _refuse(path: Path, reason: str) -> NoReturn:
    raise RequestError(f"psmnet: {path} {reason}")


# Pairs


class Pair(NamedTuple):
    """Two images and the disparity of the left one, all of the same size."""

    left: Picture
    right: Picture
    disparity: Disparity


@dataclass(frozen=True)
class PairFiles:
    """The files of a pair."""

    left: Path
    right: Path
    disparity: Path

    def check(self) -> None:
        """Check lengths and headers.

        Raises:
            RequestError: a file is missing, truncated, of another format or of another size.
        """
        pictures = [inspect(path, "8-bit RGB PNG") for path in (self.left, self.right)]
        disparity = inspect(self.disparity, "PFM of one channel", "16-bit grey PNG")
        expected = pictures[0]
        for path, header in ((self.right, pictures[1]), (self.disparity, disparity)):
            if (header.height, header.width) != (expected.height, expected.width):
                raise RequestError(
                    f"psmnet: {path} has {header.width}x{header.height} pixels "
                    f"and {self.left} has {expected.width}x{expected.height}"
                )

    def load(self) -> Pair:
        """Read the files.

        Raises:
            RequestError: as for `check`, or a file is damaged.
        """
        self.check()
        return Pair(
            read_picture(self.left), read_picture(self.right), read_disparity(self.disparity)
        )


class Pairs(Protocol):
    """Pairs by number: a list, or `PairsOnDisk`."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Pair: ...


@dataclass(frozen=True)
class PairsOnDisk:
    """Pairs that are read on access."""

    files: Sequence[PairFiles]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int, /) -> Pair:
        return self.files[number].load()


def load_pairs(pairs: Pairs, numbers: Sequence[int]) -> list[Pair]:
    """Return pairs by number, read in parallel: decoding a PNG releases the interpreter lock."""
    with ThreadPoolExecutor(len(numbers)) as readers:
        return list(readers.map(pairs.__getitem__, numbers))
