"""What a run's data are, said without importing torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Source = Literal["official", "real", "synthetic"]


@dataclass(frozen=True)
class DataDescription:
    """Where the data come from, and their fingerprint, which is part of a run's identity.

    ``official`` are the published data of the task's name, ``real`` are other measured or
    written data, ``synthetic`` are made by this project or by a simulator.
    """

    source: Source
    name: str
    sha256: str

    def as_dict(self) -> dict[str, str]:
        """Return the ``data`` part of a record."""
        return asdict(self)
