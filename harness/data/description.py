"""What a run's data are, said without importing torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Literal, get_args

from harness.errors import RequestError, nearest

Source = Literal["official", "real", "synthetic"]


@dataclass(frozen=True)
class DataDescription:
    """Where the data come from, and their fingerprint, which is part of a run's identity.

    Attributes:
        source: ``official`` are the published data of the task's name, ``real`` are other measured
            or written data, ``synthetic`` are made by this project or by a simulator.
        name: what the data are, for people.
        sha256: a fingerprint; data with the same one are compared with each other.
        stands_in_for: the published data set that real data are used in place of, as English text
            is for the Penn Treebank; reports stamp these STAND-IN. None, the default, where the
            data are what the task is about, as with a user's own data: these have no stamp.

    Raises:
        RequestError: the source is none of the three, or a part is no text.
    """

    source: Source
    name: str
    sha256: str
    stands_in_for: str | None = None

    def __post_init__(self) -> None:
        """Refuse what a record could not say."""
        sources = get_args(Source)
        if self.source not in sources:
            raise RequestError(
                f"the source of the data {self.source!r} is unknown"
                f"{nearest(str(self.source), sources)}"
            )
        for part in (self.name, self.sha256):
            if not isinstance(part, str):
                raise RequestError(f"of the data, name and sha256 are texts, not {part!r}")

    def as_dict(self) -> dict[str, str | None]:
        """Return the ``data`` part of a record."""
        return asdict(self)


APPLE_DOUBLE = b"\x00\x05\x16\x07"
"""How the ``._NAME`` begins in which macOS keeps the attributes of NAME on other disks."""


def is_hidden(path: PurePath) -> bool:
    """Tell a name, or a folder on the way to it, that begins with a dot: ``._0001.png``, say."""
    return any(part.startswith(".") for part in path.parts)


def listed(folder: Path, pattern: str) -> list[Path]:
    """Return what matches a pattern in a folder, ordered by path, hidden files left out.

    Args:
        folder: where to look; it need not be there.
        pattern: as `Path.glob` takes it.
    """
    found = folder.glob(pattern)
    return sorted(path for path in found if not is_hidden(path.relative_to(folder)))
