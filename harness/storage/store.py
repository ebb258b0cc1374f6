"""The results folder: it has a folder for each run, which is done once it has a record."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.errors import DamagedFile, RequestError, enumerated, nearest, warn
from harness.record import Record, decode, encode
from harness.storage import files
from harness.storage.files import is_held

RECORD, WEIGHTS = "record.json", "network.safetensors"
FAILURE, DETAILS = "failure.json", "failure.txt"
"""Names of files in a run's folder."""

OF_RUNS = (RECORD, FAILURE, DETAILS, "journal.jsonl", "lives.json", "owner")
"""A folder with any of these files belongs to a run."""

AGAIN = "again"
"""The folder, within a results folder, of finished runs that are being repeated."""


class Store:
    """A results folder.

    Args:
        folder: its path; the folder is created when the first run needs it.

    Raises:
        RequestError: the path is that of a file, or cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        try:
            is_no_folder = folder.exists() and not folder.is_dir()
        except (OSError, ValueError) as error:
            raise RequestError(f"results folder {folder}: {_why(error)}") from None
        if is_no_folder:
            raise RequestError(f"results folder {folder} is a file, not a folder")
        self.folder = folder

    def open_run(self, run_id: str) -> Path:
        """Return the folder of a run, creating it if necessary.

        Raises:
            RequestError: it cannot be created.
        """
        folder = self.folder / run_id
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError(f"results folder {self.folder}: {error.strerror}") from error
        return folder

    def record(self, run_id: str) -> Record | None:
        """Return the record of a run; None if the run is not done.

        Raises:
            DamagedFile: the record cannot be read, or is damaged.
            RequestError: its schema is not supported.
        """
        return _read(self.folder / run_id / RECORD, "to run again")

    def save(self, record: Record) -> None:
        """Write a record, which is the last step of a run."""
        files.write(self.folder / record["run_id"] / RECORD, encode(record))

    def save_failure(self, record: Record, details: str) -> None:
        """Write the record of a failed run and its traceback, which do not count as a result."""
        folder = self.folder / record["run_id"]
        files.write(folder / DETAILS, details.encode(errors="backslashreplace"))
        files.write(folder / FAILURE, encode(record))

    def failure(self, run_id: str) -> Record | None:
        """Return the record of a run whose last attempt failed; None if it did not fail.

        Raises:
            DamagedFile: the record cannot be read, or is damaged.
            RequestError: its schema is not supported.
        """
        return _read(self.folder / run_id / FAILURE, "or run again")

    def failure_details(self, run_id: str) -> str:
        """Return the traceback of a failed run; empty if it left none."""
        path = self.folder / run_id / DETAILS
        try:
            return path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"{path.name} cannot be read: {_why(error)}"

    def forget_failure(self, run_id: str) -> None:
        """Remove what `save_failure` wrote, since the run is tried again."""
        for name in (FAILURE, DETAILS):
            files.remove(self.folder / run_id / name)

    def why_empty(self, lacking: str = "no runs") -> str:
        """Return why there is nothing to show: the folder is missing, or lacks such runs."""
        if not files.is_there(self.folder):
            return f"results folder {self.folder} does not exist"
        return f"results folder {self.folder} contains {lacking}"

    def run_ids(self) -> list[str]:
        """Return the names of the runs that are done, in alphabetical order."""
        return [name for name in self.folders() if files.is_there(self.folder / name / RECORD)]

    def folders(self) -> list[str]:
        """Return the names of the folders of all runs, done or not, in alphabetical order.

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

    def records(self, complain: Callable[[str], None] = warn) -> Iterator[Record]:
        """Go through the records of the runs that are done.

        Args:
            complain: receives a line for each record that cannot be read, which is skipped.
        """
        for run_id in self.run_ids():
            try:
                record = self.record(run_id)
            except RequestError as error:
                complain(str(error))
            else:
                if record is not None:
                    yield record

    def again(self) -> Store:
        """Return the folder of the runs that are being repeated.

        A repeated run stays there until it is done, so its old result remains until then.
        """
        return Store(self.folder / AGAIN)

    def replace(self, run_id: str) -> None:
        """Replace a run with its repetition, which is done.

        If the process ends at any moment, one of the two is in place; repeat the call to continue.

        Raises:
            RequestError: the system does not permit it.
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
        """Return the record of a run.

        Args:
            name: the run's folder, its name, the beginning of its name, or its hash.

        Raises:
            RequestError: no run that is done fits, or several do.
        """
        folder = self.locate(name)
        record = Store(folder.parent).record(folder.name)
        assert record is not None
        return record

    def locate(self, name: str) -> Path:
        """Return the folder of a run that is done, named as for `find`.

        Raises:
            RequestError: no run that is done fits, or several do.
        """
        folder = Path(os.path.realpath(name))
        if files.is_there(folder / RECORD):
            return folder
        if name and any(files.is_there(folder / file) for file in OF_RUNS):
            raise RequestError(Store(folder.parent).why_not_done(folder.name))
        return self.folder / self._complete(name)

    def _complete(self, name: str) -> str:
        """Return the full name of a run that is done."""
        folders = self.folders()
        known = [run for run in folders if files.is_there(self.folder / run / RECORD)]
        fitting = _fitting(name, known)
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise RequestError(f"{name!r} is ambiguous: {enumerated(fitting)}")
        begun = _fitting(name, folders)
        if len(begun) == 1:
            raise RequestError(self.why_not_done(begun[0]))
        if begun:
            raise RequestError(f"{name!r} is ambiguous: {enumerated(begun)}; none is done")
        if name and os.path.isdir(self.folder / name):
            raise RequestError(self.why_not_done(name))
        if not known:
            raise RequestError(self.why_empty("no run that is done"))
        raise RequestError(
            f"results folder {self.folder} contains no run {name!r}{nearest(name, folders)}"
        )

    def why_not_done(self, run_id: str) -> str:
        """Return why a run that has begun has no record, such as the reason why it failed."""
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
    """Return the part of a record that is equal for two runs of the same identity."""
    return {
        "status": record["status"],
        "quality": record["quality"],
        "sparsity": record["sparsity"],
        "events": record["events"],
    }


def _fitting(name: str, known: list[str]) -> list[str]:
    """Return the known runs that a name, the beginning of a name, or a hash may refer to."""
    exact = [name] if name in known else []
    return exact or [run for run in known if run.startswith(name) or run.endswith(name)]


def _read(path: Path, remove_it: str) -> Record | None:
    """Return the record in a file; None if there is no file.

    Args:
        path: the file.
        remove_it: what a user gains by removing a damaged file, as in "to run again".
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise DamagedFile(f"{path} is a link to a file that does not exist") from None
        return None
    except OSError as error:
        if not files.is_there(path):
            return None
        raise DamagedFile(f"{path} cannot be read: {_why(error)}") from None
    try:
        record = decode(content)
    except DamagedFile as error:
        what = f": {error}" if str(error) else ""
        raise DamagedFile(f"{path} is damaged{what}; remove it {remove_it}") from None
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from None
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
