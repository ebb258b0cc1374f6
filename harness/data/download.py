"""Official data files: downloaded, resumed after an interruption, verified and unpacked.

Own code, since pooch and torchvision start an interrupted download again from the beginning, and
one of these files has 2.8 GB.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.client
import lzma
import os
import stat
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from pathlib import Path, PureWindowsPath

from harness.data.cache import cache_folder
from harness.errors import RequestError, RunFailed
from harness.text import size

CHUNK = 1 << 16
"""Bytes between two lines of progress."""
TIMEOUT = 30.0
"""Seconds without data after which a connection counts as lost."""

ReportProgress = Callable[[str], None]
"""Receives lines of progress."""


def download(url: str, path: Path, checksum: str, report: ReportProgress) -> bool:
    """Download a file unless it exists, and return whether it was downloaded.

    The content is collected in ``NAME.part``, where the next attempt resumes, and moved to `path`
    once it is complete and has the right checksum.

    Args:
        url: the address.
        path: the destination.
        checksum: the published MD5 or SHA-256, in hexadecimal digits.
        report: receives lines of progress.

    Raises:
        RequestError: another file exists at `path`, or nothing can be written there.
        RunFailed: the download failed, or gave a file with another checksum.
    """
    algorithm = checksum_algorithm(checksum)
    if path.exists():
        if not path.is_file() or _checksum_of_existing(path, algorithm) != checksum:
            raise RequestError(
                f"{path} exists, but it is not the official file: "
                f"its {algorithm} is not {checksum}; remove it to download it"
            )
        return False
    part = path.with_name(f"{path.name}.part")
    start = part.stat().st_size if part.exists() else 0
    response = _request(url, start)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if response is not None:
            with response, part.open("ab") as file:
                if response.status != http.client.PARTIAL_CONTENT:
                    start = file.truncate(0)
                for chunk in _chunks(response, url, path.name, start, report):
                    file.write(chunk)
        if file_checksum(part, algorithm) != checksum:
            part.unlink()
            raise RunFailed(f"{url} is not the official file: its {algorithm} is not {checksum}")
        part.replace(path)
    except OSError as error:
        raise RequestError(f"cannot write {part}: {error.strerror}") from error
    return True


def _checksum_of_existing(path: Path, algorithm: str) -> str:
    try:
        return file_checksum(path, algorithm)
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from error


def _request(url: str, start: int) -> HTTPResponse | None:
    """Request a file from a byte position on; None if the file ends there."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return None
        raise RunFailed(f"cannot download {url}: {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        reason = getattr(cause, "strerror", None) or cause
        raise RunFailed(f"cannot reach {url}: {reason}") from error
    return response


def _chunks(
    response: HTTPResponse, url: str, name: str, start: int, report: ReportProgress
) -> Iterator[bytes]:
    """Yield the content of a response.

    Raises:
        RunFailed: it ends too early.
    """
    announced = response.headers["Content-Length"]
    total = None if announced is None else start + int(announced)
    received, reason = start, ""
    try:
        while chunk := response.read(CHUNK):
            yield chunk
            received += len(chunk)
            report(f"{name}: {size(received)}" + ("" if total is None else f" of {size(total)}"))
    except (OSError, http.client.HTTPException) as error:
        reason = f": {error}"
    if reason or (total is not None and received < total):
        raise RunFailed(
            f"the connection was lost after {size(received)} of {url}{reason}; "
            "the same command resumes from there"
        )


_ALGORITHMS = {32: "MD5", 64: "SHA-256"}
"""By the number of hexadecimal digits."""


def require_checksum(
    path: Path, expected: str, task: str, *, note: bool = False, otherwise: str = ""
) -> None:
    """Check that a file is the published one.

    Args:
        path: the file.
        expected: the checksum its publisher gives, MD5 or SHA-256.
        task: the task whose ``data fetch`` downloads the file.
        note: remember in the user's cache folder that the file was right with this size and
            modification time, and do not read it again while both stay the same. For files of
            gigabytes that cannot do harm if they are changed on purpose.
        otherwise: what can be done with a changed file, besides replacing it.

    Raises:
        RequestError: it is missing, truncated or changed.
    """
    remedy = f"run `python -m harness data fetch {task}`, or copy {path.name} into {path.parent}"
    algorithm = checksum_algorithm(expected)
    noted = _note_of(path) if note else None
    try:
        status = path.stat()
        seen = f"{expected} {status.st_size} {status.st_mtime_ns}".encode()
        if noted is not None and _content(noted) == seen:
            return
        found = file_checksum(path, algorithm)
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}; {remedy}") from None
    if found != expected:
        raise RequestError(
            f"{path} is truncated or changed: its {algorithm} is {found} and not {expected}; "
            f"remove it, and {remedy}{otherwise}"
        )
    if noted is not None:
        with contextlib.suppress(OSError):  # without the note, the file is read again next time
            noted.parent.mkdir(parents=True, exist_ok=True)
            noted.write_bytes(seen)


def _note_of(path: Path) -> Path | None:
    """Return the path of the note about a file; None if there is no cache folder."""
    place = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
    with contextlib.suppress(RequestError):
        return cache_folder() / "checked" / f"{path.name}-{place}"
    return None


def _content(path: Path) -> bytes | None:
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return None


def checksum_algorithm(checksum: str) -> str:
    """Return the algorithm of a checksum by its length: ``MD5`` or ``SHA-256``."""
    return _ALGORITHMS[len(checksum)]


def file_checksum(path: Path, algorithm: str) -> str:
    """Return the checksum of a file, in hexadecimal digits.

    Args:
        path: the file.
        algorithm: ``MD5`` or ``SHA-256``.

    Raises:
        OSError: the file cannot be read.
    """
    status = path.stat()
    return _file_checksum(path, algorithm, status.st_size, status.st_mtime_ns)


@functools.cache
def _file_checksum(path: Path, algorithm: str, size: int, modified: int) -> str:
    name = algorithm.replace("-", "").lower()
    with path.open("rb") as file:
        return hashlib.file_digest(
            file, lambda: hashlib.new(name, usedforsecurity=False)
        ).hexdigest()


MEMBERS_BETWEEN_LINES = 100

_DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError),
    *(RuntimeError, ValueError),
)
"""Raised by the standard library for archives that are truncated, encrypted or no archives."""


def extract(archive: Path, folder: Path, report: ReportProgress) -> bool:
    """Unpack an archive unless all its files exist, and return whether it was unpacked.

    Each file appears whole or not at all, and existing files are kept.

    Args:
        archive: a zip or tar file, compressed or not.
        folder: the destination.
        report: receives lines of progress.

    Raises:
        RequestError: the archive is damaged, or has a member that would be written outside the
            folder or is neither a file nor a folder.
    """
    try:
        if not _missing(archive, folder):
            return False
        with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-") as unpacked:
            _unpack(archive, Path(unpacked), report)
            _move(Path(unpacked), folder)
    except _DAMAGED as error:
        reason = str(error).partition("\n")[0].rstrip(":") or type(error).__name__
        raise RequestError(f"cannot unpack {archive}: {reason}") from None
    return True


def _missing(archive: Path, folder: Path) -> bool:
    """Return whether any file of the archive is missing from the folder."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as zip_file:
            names = [name for name in zip_file.namelist() if not name.endswith("/")]
    else:
        with tarfile.open(archive) as tar_file:
            names = [member.name for member in tar_file if not member.isdir()]
    return not all((folder / name).exists() for name in names)


def _move(unpacked: Path, folder: Path) -> None:
    for file in sorted(unpacked.rglob("*")):
        place = folder / file.relative_to(unpacked)
        if file.is_file() and not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            file.replace(place)


def _unpack(archive: Path, folder: Path, report: ReportProgress) -> None:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as zip_file:
            for number, member in enumerate(zip_file.infolist(), start=1):
                kind = stat.S_IFMT(member.external_attr >> 16)
                _require_safe(archive, member.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR))
                zip_file.extract(member, folder)
                _report_count(archive, number, report)
    else:
        with tarfile.open(archive) as tar_file:
            tar_file.extractall(folder, _safe_members(archive, tar_file, report), filter="data")


def _safe_members(
    archive: Path, tar_file: tarfile.TarFile, report: ReportProgress
) -> Iterator[tarfile.TarInfo]:
    """Yield the members, each checked just before it is unpacked."""
    for number, member in enumerate(tar_file, start=1):
        _require_safe(archive, member.name, member.isfile() or member.isdir())
        yield member
        _report_count(archive, number, report)


def _require_safe(archive: Path, name: str, is_plain: bool) -> None:
    """Refuse a member that could write outside the folder; links could, too."""
    path = PureWindowsPath(name)  # understands both kinds of slashes, and drives
    if path.anchor or ".." in path.parts:
        raise RequestError(f"{archive} is refused: its member {name!r} leaves the folder")
    if not is_plain:
        raise RequestError(f"{archive} is refused: its member {name!r} is not a plain file")


def _report_count(archive: Path, number: int, report: ReportProgress) -> None:
    if number % MEMBERS_BETWEEN_LINES == 0:
        report(f"{archive.name}: {number:,} files unpacked")
