"""What a run's data are, said without importing torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, get_args

from harness.errors import RequestError, nearest

Source = Literal["official", "real", "synthetic"]


@dataclass(frozen=True)
class DataDescription:
    """Where the data come from, and their fingerprint, which is part of a run's identity.

    ``official`` are the published data of the task's name, ``real`` are other measured or
    written data, ``synthetic`` are made by this project or by a simulator.

    Raises:
        RequestError: the source is none of these, or a part is no text.
    """

    source: Source
    name: str
    sha256: str

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

    def as_dict(self) -> dict[str, str]:
        """Return the ``data`` part of a record."""
        return asdict(self)
