"""Descriptions of data, without importing torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Literal, get_args

from harness.errors import RequestError, nearest

Source = Literal["official", "unofficial", "real", "synthetic"]


@dataclass(frozen=True)
class DataDescription:
    """The origin of data, and their hash, which is part of a run's identity.

    Attributes:
        source: ``official`` for the published data set that the task is named after,
            ``unofficial`` for the same in other files than the published ones, ``real`` for other
            measured or written data, ``synthetic`` for data made by this project or by a simulator.
        name: describes the data to people.
        sha256: a hash; results on data with the same hash are compared with each other.
        stands_in_for: the published data set that real data replace, as English text replaces
            the Penn Treebank; reports stamp the results STAND-IN. None, the default, if the data
            are what the task is about, such as a user's own.

    Raises:
        RequestError: the source is none of the four, or name or hash is not a string.
    """

    source: Source
    name: str
    sha256: str
    stands_in_for: str | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        sources = get_args(Source)
        if self.source not in sources:
            raise RequestError(
                f"the source of the data {self.source!r} is unknown"
                f"{nearest(str(self.source), sources)}"
            )
        for part in (self.name, self.sha256):
            if not isinstance(part, str):
                raise RequestError(f"name and sha256 of the data are strings, not {part!r}")

    def as_dict(self) -> dict[str, str | None]:
        """Return the ``data`` part of a record."""
        return asdict(self)


APPLE_DOUBLE = b"\x00\x05\x16\x07"
"""First bytes of ``._NAME``, in which macOS keeps the attributes of NAME on other disks."""


def is_hidden(path: PurePath) -> bool:
    """Return whether the name of a file or of a folder above it begins with a dot."""
    return any(part.startswith(".") for part in path.parts)


def listed(folder: Path, pattern: str) -> list[Path]:
    """Return the files in a folder that match a pattern, sorted by path, without hidden ones.

    Args:
        folder: may be missing.
        pattern: as `Path.glob` takes it.
    """
    found = folder.glob(pattern)
    return sorted(path for path in found if not is_hidden(path.relative_to(folder)))


def located(path: str, data_folder: Path) -> Path | None:
    """Return a file or folder that a setting names: in the current folder, else in the data folder.

    Args:
        path: relative to either folder, or absolute.
        data_folder: the folder that tasks read data from.

    Returns:
        None if there is neither.
    """
    return next((each for each in (Path(path), data_folder / path) if each.exists()), None)
