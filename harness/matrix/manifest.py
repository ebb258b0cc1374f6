"""The manifest of a matrix: a file in the results folder that lists every run that belongs to it.

``status`` and the report read it to name the runs that have no result yet.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from filelock import FileLock

from harness.errors import DamagedFile, RequestError
from harness.matrix.plan import Matrix
from harness.record import Record, require
from harness.results.records import pending_record
from harness.storage import files

FOLDER = "matrices"
"""The folder of manifests within a results folder."""


@dataclass(frozen=True)
class MatrixManifest:
    """A matrix as its results folder describes it.

    Attributes:
        name: of the suite.
        command: the command that started or resumes it.
        runs: by the run's name, the record that stands in until the run has its own.
        left_out: as of a `Matrix`.
    """

    name: str
    command: str
    runs: Mapping[str, Record]
    left_out: Mapping[str, Record]


class _LeftOut(TypedDict):
    reason: str


class ManifestFile(TypedDict):
    """The content of the file."""

    name: str
    command: str
    runs: dict[str, dict[str, Any]]
    left_out: dict[str, _LeftOut]


def write_manifest(matrix: Matrix, results: Path, command: str) -> None:
    """Write the manifest of a matrix into its results folder.

    Raises:
        RequestError: the folder cannot be written.
        RunFailed: the file cannot be written, because the disk is full, for example.
    """
    content = {
        "name": matrix.name,
        "command": command,
        "runs": {run_id: pending_record(plan) for run_id, plan in matrix.plans.items()},
        "left_out": matrix.left_out,
    }
    names = list(matrix.plans) or list(matrix.left_out)
    identity = hashlib.sha256(json.dumps(names).encode()).hexdigest()[:8]
    folder = results / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            longest = files.LONGEST_NAME - len(f"-{identity}.json{files.UNFINISHED}")
            path = folder / f"{files.shortened(matrix.name, longest)}-{identity}.json"
            files.write(path, json.dumps(content, indent=1).encode())
    except OSError as error:
        raise RequestError(f"results folder {results}: {error.strerror}") from error


def manifest_files(results: Path) -> list[Path]:
    """Return the manifests in a results folder."""
    return sorted((results / FOLDER).glob("*.json"))


def read_manifest(path: Path) -> MatrixManifest:
    """Return the manifest in a file.

    Raises:
        DamagedFile: it cannot be read, or is damaged.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DamagedFile(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        content = None
    try:
        require(content, ManifestFile)
    except DamagedFile:
        raise DamagedFile(f"{path} is damaged; remove it, or start the matrix again") from None
    return MatrixManifest(content["name"], content["command"], content["runs"], content["left_out"])
