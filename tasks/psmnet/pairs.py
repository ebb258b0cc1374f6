"""Pairs of images with the disparity of the left one, on the disk or in memory."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

from harness.errors import RequestError
from tasks.psmnet.formats import Disparity, Picture, inspect, read_disparity, read_picture

P = TypeVar("P", bound=Sized)

FETCH = "python -m harness data fetch psmnet says where to get them"
"""What to do about official files that are missing."""


class Pair(NamedTuple):
    """Two images and the disparity of the left one, all of one size."""

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
        """Look at lengths and headers.

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
        """Return what is in the files.

        Raises:
            RequestError: as `check`, or their content is damaged.
        """
        self.check()
        return Pair(
            read_picture(self.left), read_picture(self.right), read_disparity(self.disparity)
        )


class Pairs(Protocol):
    """Pairs by their numbers: a list, or `PairsOnDisk`."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Pair: ...


@dataclass(frozen=True)
class PairsOnDisk:
    """Pairs that are read when they are asked for."""

    files: Sequence[PairFiles]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int, /) -> Pair:
        return self.files[number].load()


def load(pairs: Pairs, numbers: Sequence[int]) -> list[Pair]:
    """Return pairs by their numbers, read side by side: decoding a PNG leaves Python free."""
    with ThreadPoolExecutor(len(numbers)) as readers:
        return list(readers.map(pairs.__getitem__, numbers))


@dataclass(frozen=True)
class Parts(Generic[P]):
    """What is trained on, what is looked at meanwhile, and what is tested on in the end."""

    training: P
    validation: P
    test: P
