"""Official files: which are there, and whether they are as their publisher packed them."""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from harness.data.description import Source, listed
from harness.data.download import checksum_algorithm, file_checksum, require_checksum
from harness.errors import RequestError
from harness.text import size

OTHERWISE = "; --set accept=unofficial uses it if the data are complete"
"""The end of a complaint about a file that is not as published."""


def identify(
    folder: Path, checksums: Mapping[str, str], task: str, accept: str, *, note: bool = False
) -> tuple[Source, str]:
    """Return the source of the files that a task reads, and their fingerprint.

    Args:
        folder: the task's folder in the data folder.
        checksums: the published checksums of the files, by their paths in the folder.
        task: the task's name.
        accept: the setting of that name; ``unofficial`` accepts files with other checksums, and
            files that were compressed when they were published.
        note: as for `require_checksum`.

    Returns:
        ``official`` or ``unofficial``, and a fingerprint, which is the same for the published files
        whatever is accepted.

    Raises:
        RequestError: a file is missing, or differs from the published one and is not accepted.
    """
    if accept == "official":
        for name, expected in checksums.items():
            require_checksum(folder / name, expected, task, note=note, otherwise=OTHERWISE)
        return "official", _fingerprint(checksums.values())
    found = [_found_checksum(folder, name, expected, task) for name, expected in checksums.items()]
    is_published = found == list(checksums.values())
    return "official" if is_published else "unofficial", _fingerprint(found)


def place_of(folder: Path, name: str) -> Path:
    """Return the path of a file, or of the same file without its compression if only that exists.

    Args:
        folder: the task's folder in the data folder.
        name: the path of the published file in it.
    """
    published = folder / name
    unpacked = folder / name.removesuffix(".gz")
    return unpacked if unpacked.exists() and not published.exists() else published


def forms(folder: Path, checksums: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the files of a task, published ones first, each with the form in which it is there.

    Args:
        folder: the task's folder in the data folder; it may be missing.
        checksums: the published checksums of its files, by their paths in the folder.

    Raises:
        RequestError: a file cannot be read.
    """
    for name, expected in checksums.items():
        path = place_of(folder, name)
        if not path.exists():
            yield name, "missing"
        elif path.name != Path(name).name:
            yield str(path.relative_to(folder)), f"{name}, unpacked"
        else:
            is_published = _checksum(path, expected) == expected
            yield name, "as published" if is_published else "differs from the published file"
    known = {place_of(folder, name) for name in checksums}
    for path in listed(folder, "*"):
        if path.is_file() and path not in known:
            is_archive = tarfile.is_tarfile(path) or zipfile.is_zipfile(path)
            what = "an archive, of which only unpacked files are read" if is_archive else "not read"
            yield path.name, f"{what} ({size(path.stat().st_size)})"


def _found_checksum(folder: Path, name: str, expected: str, task: str) -> str:
    path = place_of(folder, name)
    if not path.exists():
        require_checksum(folder / name, expected, task)
    return _checksum(path, expected)


def _checksum(path: Path, like: str) -> str:
    """Return the checksum of a file by the algorithm of another checksum."""
    try:
        return file_checksum(path, checksum_algorithm(like))
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None


def _fingerprint(checksums: Iterable[str]) -> str:
    return hashlib.sha256(" ".join(checksums).encode()).hexdigest()
