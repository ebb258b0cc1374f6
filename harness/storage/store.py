"""The results folder: one folder per run, done when its record exists."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import DamagedFile, RequestError, enumerated, nearest, warn
from harness.storage import files
from harness.storage.damage import damage
from harness.storage.files import is_held

SCHEMA = 1
"""Version of the record's layout."""

RECORD, WEIGHTS = "record.json", "network.safetensors"
FAILURE, DETAILS = "failure.json", "failure.txt"
"""In a run's folder."""

OF_RUNS = (RECORD, FAILURE, DETAILS, "journal.jsonl", "lives.json", "owner")
"""A folder that has any of these files is that of a run."""

AGAIN = "again"
"""The folder, within a results folder, of runs that are carried out once more."""

Record = Mapping[str, Any]


class Store:
    """Records by run, in a folder.

    Args:
        folder: is made when the first run needs it.

    Raises:
        RequestError: it cannot be one.
    """

    def __init__(self, folder: Path) -> None:
        try:
            is_no_folder = folder.exists() and not folder.is_dir()
        except (OSError, ValueError) as error:
            raise RequestError(f"results folder {folder}: {_why(error)}") from None
        if is_no_folder:
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
            DamagedFile: it cannot be read, or is damaged.
            RequestError: it is of a newer schema.
        """
        return _read(self.folder / run_id / RECORD, "to run again")

    def save(self, record: Record) -> None:
        """Write a record: the last thing that a run does."""
        path = self.folder / str(record["run_id"]) / RECORD
        files.write(path, _as_json(record))

    def save_failure(self, record: Record, details: str) -> None:
        """Leave a failed run's record and its traceback, which do not count as a result."""
        folder = self.folder / str(record["run_id"])
        files.write(folder / DETAILS, details.encode(errors="backslashreplace"))
        files.write(folder / FAILURE, _as_json(record))

    def failure(self, run_id: str) -> Record | None:
        """Return the record of a run whose last attempt failed, None otherwise.

        Raises:
            DamagedFile: it cannot be read, or is damaged.
            RequestError: it is of a newer schema.
        """
        return _read(self.folder / run_id / FAILURE, "or run again")

    def failure_details(self, run_id: str) -> str:
        """Return what a failed run has left besides its record, its traceback, if anything."""
        path = self.folder / run_id / DETAILS
        try:
            return path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"{path.name} cannot be read: {_why(error)}"

    def forget_failure(self, run_id: str) -> None:
        """Remove what `save_failure` left: the run is tried again."""
        for name in (FAILURE, DETAILS):
            files.remove(self.folder / run_id / name)

    def run_ids(self) -> list[str]:
        """Return the runs that have a record, in alphabetical order."""
        return [name for name in self.folders() if files.is_there(self.folder / name / RECORD)]

    def folders(self) -> list[str]:
        """Return the folders of all runs, whatever became of them, in alphabetical order.

        Raises:
            RequestError: the results folder cannot be read.
        """
        try:
            with os.scandir(self.folder) as entries:
                names = sorted(entry.name for entry in entries if entry.is_dir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RequestError(f"results folder {self.folder}: {_why(error)}") from None
        return [
            name
            for name in names
            if any(files.is_there(self.folder / name / file) for file in OF_RUNS)
        ]

    def records(self, told: Callable[[str], None] = warn) -> Iterator[Record]:
        """Go through the records of the runs that are done.

        Args:
            told: takes a line for each that cannot be read, which costs the others nothing.
        """
        for run_id in self.run_ids():
            try:
                record = self.record(run_id)
            except RequestError as error:
                told(str(error))
            else:
                if record is not None:
                    yield record

    def again(self) -> Store:
        """Return the folder of runs that are carried out once more.

        A run stays there until it is done, so that its old result is there until then.
        """
        return Store(self.folder / AGAIN)

    def replace(self, run_id: str) -> None:
        """Put a run that was carried out once more, and is done, in place of the old one.

        Whatever ends the process meanwhile, one of them is there; the same call goes on.

        Raises:
            RequestError: the system does not let it.
        """
        old, new = self.folder / run_id, self.folder / AGAIN / run_id
        aside = self.folder / AGAIN / "replaced" / run_id
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.parent.mkdir(exist_ok=True)
            if files.is_there(old):
                old.rename(aside)
            new.rename(old)
        except OSError as error:
            raise RequestError(f"cannot replace {old}: {_why(error)}") from error
        shutil.rmtree(aside, ignore_errors=True)
        for emptied in (aside.parent, new.parent):
            with contextlib.suppress(OSError):
                emptied.rmdir()

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
        folder = Path(os.path.realpath(name))
        if files.is_there(folder / RECORD):
            return folder
        if name and any(files.is_there(folder / file) for file in OF_RUNS):
            raise RequestError(Store(folder.parent).why_not_done(folder.name))
        return self.folder / self._complete(name)

    def _complete(self, name: str) -> str:
        """Return the whole name of a run that is done."""
        folders = self.folders()
        known = [run for run in folders if files.is_there(self.folder / run / RECORD)]
        fitting = _fitting(name, known)
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise RequestError(f"{name!r} could be any of {enumerated(fitting)}")
        begun = _fitting(name, folders)
        if len(begun) == 1:
            raise RequestError(self.why_not_done(begun[0]))
        if begun:
            raise RequestError(f"{name!r} could be any of {enumerated(begun)}; none is done")
        if name and os.path.isdir(self.folder / name):
            raise RequestError(self.why_not_done(name))
        if not known:
            raise RequestError(f"results folder {self.folder}: holds no run that is done")
        raise RequestError(
            f"results folder {self.folder}: holds no run {name!r}{nearest(name, folders)}"
        )

    def why_not_done(self, run_id: str) -> str:
        """Return why a run that was begun has no record: it failed, say, and for what reason."""
        folder = self.folder / run_id
        if is_held(folder):
            return f"{run_id} is not done: it is running"
        try:
            failure = self.failure(run_id)
        except RequestError as error:
            return f"{run_id} failed; {error}"
        if failure is not None:
            reason = str(failure["reason"]).removesuffix(f" (more in {DETAILS})")
            return f"{run_id} {failure['status']}: {reason} (more in {folder / DETAILS})"
        if files.is_there(folder / DETAILS):
            return f"{run_id} failed (more in {folder / DETAILS})"
        return f"{run_id} is not done: it was interrupted; the same command resumes it"


def outcome(record: Record) -> dict[str, Any]:
    """Return the part of a record that two runs of one identity have in common."""
    return {key: record[key] for key in ("status", "quality", "sparsity", "events")}


def _fitting(name: str, known: list[str]) -> list[str]:
    """Return the runs that a name, the beginning of one, or a hash may mean."""
    exact = [name] if name in known else []
    return exact or [run for run in known if run.startswith(name) or run.endswith(name)]


def _read(path: Path, remove_it: str) -> Record | None:
    """Return the record in a file, None if there is no file.

    Args:
        path: where it is.
        remove_it: what removing the file is good for, if it is damaged.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise DamagedFile(f"{path}: is a link to a file that does not exist") from None
        return None
    except OSError as error:
        if not files.is_there(path):
            return None
        raise DamagedFile(f"{path}: cannot be read: {_why(error)}") from None
    remedy = f"remove it {remove_it}"
    try:
        record: dict[str, Any] = _from_json(content)
        schema = int(record["schema"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DamagedFile(f"{path}: is damaged; {remedy}") from None
    if schema > SCHEMA:
        raise RequestError(
            f"{path}: has schema {schema}, newer than {SCHEMA}, the newest known here; "
            "use the version of the project that wrote it"
        )
    if (what := damage(record)) is not None:
        raise DamagedFile(f"{path}: is damaged: {what}; {remedy}")
    _spell_switches(record)
    return record


def _spell_switches(record: Record) -> None:
    """Turn the switches of older records, which are ``on`` and ``off``, into true and false."""
    for values in (record["settings"], record["spec"]["overrides"]):
        for name in ("kernel", "channels_last", "augmentation"):
            if values.get(name) in ("on", "off"):
                values[name] = values[name] == "on"


def _why(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _from_json(text: bytes) -> Any:
    """Return what a file holds; what is no finite number is None, as in a record written here."""
    return json.loads(text, parse_constant=lambda name: None, parse_float=_finite)


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _as_json(record: Record) -> bytes:
    return (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()
