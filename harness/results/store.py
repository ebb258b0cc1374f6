"""The results folder: one folder per run, done when its record exists."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.durability import files
from harness.errors import RequestError, enumerated, nearest

SCHEMA = 1
"""Version of the record's layout."""

RECORD, WEIGHTS = "record.json", "network.safetensors"
FAILURE, DETAILS = "failure.json", "failure.txt"
"""In a run's folder."""

Record = Mapping[str, Any]


class Store:
    """Records by run, in a folder.

    Args:
        folder: is made when the first run needs it.

    Raises:
        RequestError: it is no folder.
    """

    def __init__(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise RequestError(f"results folder {folder}: is a file, not a folder")
        self.folder = folder

    def open_run(self, run_id: str) -> Path:
        """Return the folder of a run, made if need be.

        Raises:
            RequestError: it cannot be made.
        """
        folder = self.folder / run_id
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError(f"results folder {self.folder}: {error.strerror}") from error
        return folder

    def record(self, run_id: str) -> Record | None:
        """Return the record of a run that is done, None otherwise.

        Raises:
            RequestError: it is damaged, or of a newer schema.
        """
        path = self.folder / run_id / RECORD
        if not path.exists():
            return None
        try:
            record: dict[str, Any] = _from_json(path.read_bytes())
            schema = int(record["schema"])
        except (ValueError, KeyError, TypeError):
            raise RequestError(f"{path}: is damaged; remove it to run again") from None
        if schema > SCHEMA:
            raise RequestError(
                f"{path}: has schema {schema}, newer than {SCHEMA}, the newest known here; "
                "use the version of the project that wrote it"
            )
        return record

    def save(self, record: Record) -> None:
        """Write a record: the last thing that a run does."""
        path = self.folder / str(record["run_id"]) / RECORD
        files.write(path, _as_json(record))

    def save_failure(self, record: Record, details: str) -> None:
        """Leave a failed run's record and its traceback, which do not count as a result."""
        folder = self.folder / str(record["run_id"])
        files.write(folder / DETAILS, details.encode())
        files.write(folder / FAILURE, _as_json(record))

    def failure(self, run_id: str) -> Record | None:
        """Return the record of a run whose last attempt failed, None otherwise."""
        try:
            record: Record = _from_json((self.folder / run_id / FAILURE).read_bytes())
        except (OSError, ValueError):
            return None
        return record

    def failure_details(self, run_id: str) -> str:
        """Return what a failed run has left besides its record, its traceback, if anything."""
        path = self.folder / run_id / DETAILS
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def forget_failure(self, run_id: str) -> None:
        """Remove what `save_failure` left: the run is tried again."""
        for name in (FAILURE, DETAILS):
            files.remove(self.folder / run_id / name)

    def run_ids(self) -> list[str]:
        """Return the runs that are done, in alphabetical order."""
        return sorted(path.parent.name for path in self.folder.glob(f"*/{RECORD}"))

    def records(self) -> Iterator[Record]:
        """Go through the records of the runs that are done."""
        for run_id in self.run_ids():
            record = self.record(run_id)
            if record is not None:
                yield record

    def find(self, name: str) -> Record:
        """Return the record of a run by its folder, its name, the beginning of it, or its hash.

        Raises:
            RequestError: none fits, or several do.
        """
        folder = self.locate(name)
        record = Store(folder.parent).record(folder.name)
        assert record is not None
        return record

    def locate(self, name: str) -> Path:
        """Return the folder of a run that is done, named as for `find`.

        Raises:
            RequestError: none fits, or several do.
        """
        folder = Path(name).resolve()
        return folder if (folder / RECORD).exists() else self.folder / self._complete(name)

    def _complete(self, name: str) -> str:
        """Return the whole name of a run that is done."""
        known = self.run_ids()
        fitting = [name] if name in known else []
        fitting = fitting or [run for run in known if run.startswith(name) or run.endswith(name)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise RequestError(f"{name!r} could be any of {enumerated(fitting)}")
        if not known:
            raise RequestError(f"results folder {self.folder}: holds no run that is done")
        if (self.folder / name).is_dir():
            raise RequestError(f"{name} is not done: ask for the same run again to go on with it")
        raise RequestError(
            f"results folder {self.folder}: holds no run {name!r}{nearest(name, known)}"
        )


def outcome(record: Record) -> dict[str, Any]:
    """Return the part of a record that two runs of one identity have in common."""
    return {key: record[key] for key in ("status", "quality", "sparsity", "events")}


def _from_json(text: bytes) -> Any:
    """Return what a file holds; what is no finite number is None, as in a record written here."""
    return json.loads(text, parse_constant=lambda name: None)


def _as_json(record: Record) -> bytes:
    return (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()
