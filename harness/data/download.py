"""Files from the network: gone on with after an interruption, and checked before they are used."""

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

from harness.data.decoded import cache_folder
from harness.errors import RequestError, RunFailed
from harness.text import size

PIECE = 1 << 16
"""Bytes between two lines of progress."""
TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as lost."""

Report = Callable[[str], None]
"""Receives lines of progress that say how far a download has come."""


def download(url: str, path: Path, expected: str, report: Report) -> bool:
    """Download a file, unless it is there; return whether it was not.

    It grows in ``NAME.part``, where the next attempt goes on, and is moved to its place when it is
    whole and right.

    Args:
        url: its address.
        path: its place.
        expected: its MD5 or SHA-256.
        report: takes lines of progress.

    Raises:
        RequestError: another file is in its place, or nothing can be written there.
        RunFailed: it cannot be downloaded now, or is not the right file.
    """
    if path.exists():
        if not path.is_file() or _checksum_of(path, kind(expected)) != expected:
            raise RequestError(
                f"{path} is there, but it is not the official file: "
                f"its {kind(expected)} is not {expected}; remove it to fetch it"
            )
        return False
    part = path.with_name(f"{path.name}.part")
    start = part.stat().st_size if part.exists() else 0
    response = _ask(url, start)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if response is not None:
            with response, part.open("ab") as file:
                if response.status != http.client.PARTIAL_CONTENT:
                    start = file.truncate(0)
                for piece in _pieces(response, url, path.name, start, report):
                    file.write(piece)
        if checksum(part, kind(expected)) != expected:
            part.unlink()
            raise RunFailed(
                f"{url} is not the official file: its {kind(expected)} is not {expected}"
            )
        part.replace(path)
    except OSError as error:
        raise RequestError(f"cannot write {part}: {error.strerror}") from error
    return True


def _checksum_of(path: Path, kind: str) -> str:
    try:
        return checksum(path, kind)
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from error


def _ask(url: str, start: int) -> HTTPResponse | None:
    """Ask for a file from a byte on; None if there are no further bytes."""
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


def _pieces(
    response: HTTPResponse, url: str, name: str, start: int, report: Report
) -> Iterator[bytes]:
    """Go through what comes.

    Raises:
        RunFailed: it ends too early.
    """
    announced = response.headers["Content-Length"]
    whole = None if announced is None else start + int(announced)
    have, reason = start, ""
    try:
        while piece := response.read(PIECE):
            yield piece
            have += len(piece)
            report(f"{name}: {size(have)}" + ("" if whole is None else f" of {size(whole)}"))
    except (OSError, http.client.HTTPException) as error:
        reason = f": {error}"
    if reason or (whole is not None and have < whole):
        raise RunFailed(
            f"the connection was lost after {size(have)} of {url}{reason}; "
            "the same command goes on from there"
        )


_KINDS = {32: "MD5", 64: "SHA-256"}
"""By the number of digits, in hexadecimal."""


def require_checksum(path: Path, expected: str, task: str, *, note: bool = False) -> None:
    """See to it that a file is the published one, before anything in it is believed.

    Args:
        path: the file.
        expected: its published MD5 or SHA-256, by which of these its publisher identifies it.
        task: whose ``data fetch`` gets it.
        note: write down in the user's cache folder that it was right at this size and time, and
            believe that the next time: for gigabytes that can do no harm.

    Raises:
        RequestError: it is missing, truncated or changed.
    """
    remedy = (
        f"put the official {path.name} into {path.parent}, "
        f"or let python -m harness data fetch {task} do it"
    )
    noted = _note_of(path) if note else None
    try:
        status = path.stat()
        seen = f"{expected} {status.st_size} {status.st_mtime_ns}".encode()
        if noted is not None and _content(noted) == seen:
            return
        found = checksum(path, kind(expected))
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}; {remedy}") from None
    if found != expected:
        raise RequestError(
            f"{path} is truncated or changed: its {kind(expected)} is {found} and not {expected}; "
            f"remove it, and {remedy}"
        )
    if noted is not None:
        with contextlib.suppress(OSError):  # without the note it is checked again
            noted.parent.mkdir(parents=True, exist_ok=True)
            noted.write_bytes(seen)


def _note_of(path: Path) -> Path | None:
    """Return where a note on a file lies; None if there is no place for it."""
    place = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
    with contextlib.suppress(RequestError):
        return cache_folder() / "checked" / f"{path.name}-{place}"
    return None


def _content(path: Path) -> bytes | None:
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return None


def kind(expected: str) -> str:
    """Return what a published checksum is: ``MD5`` or ``SHA-256``."""
    return _KINDS[len(expected)]


def checksum(path: Path, kind: str) -> str:
    """Return the checksum of a file, in hexadecimal digits.

    Args:
        path: the file.
        kind: ``MD5`` or ``SHA-256``.

    Raises:
        OSError: it cannot be read.
    """
    status = path.stat()
    return _checksum(path, kind, status.st_size, status.st_mtime_ns)


@functools.cache
def _checksum(path: Path, kind: str, size: int, modified: int) -> str:
    algorithm = kind.replace("-", "").lower()
    with path.open("rb") as file:
        return hashlib.file_digest(
            file, lambda: hashlib.new(algorithm, usedforsecurity=False)
        ).hexdigest()


MEMBERS_BETWEEN_LINES = 100

_DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError),
    *(RuntimeError, ValueError),
)
"""What the standard library raises for an archive that is cut short, encrypted or no archive."""


def extract(archive: Path, folder: Path, report: Report) -> bool:
    """Unpack an archive into a folder, unless all of it is there; return whether it was not.

    Each file appears whole or not at all; what is there already is left alone.

    Args:
        archive: a zip file or a tar file, compressed or not.
        folder: where its content goes.
        report: takes lines of progress.

    Raises:
        RequestError: it is damaged, or a member would be written outside of the folder, or is
            neither a file nor a folder.
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
    """Return whether a file of the archive is not in the folder."""
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


def _unpack(archive: Path, folder: Path, report: Report) -> None:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as zip_file:
            for number, member in enumerate(zip_file.infolist(), start=1):
                kind = stat.S_IFMT(member.external_attr >> 16)
                _require_safe(archive, member.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR))
                zip_file.extract(member, folder)
                _say(archive, number, report)
    else:
        with tarfile.open(archive) as tar_file:
            tar_file.extractall(folder, _safe_members(archive, tar_file, report), filter="data")


def _safe_members(
    archive: Path, tar_file: tarfile.TarFile, report: Report
) -> Iterator[tarfile.TarInfo]:
    """Go through the members one by one: each is looked at before it is written."""
    for number, member in enumerate(tar_file, start=1):
        _require_safe(archive, member.name, member.isfile() or member.isdir())
        yield member
        _say(archive, number, report)


def _require_safe(archive: Path, name: str, is_plain: bool) -> None:
    """Refuse what could be written elsewhere; links, too, since they lead there."""
    path = PureWindowsPath(name)  # knows both kinds of slashes, and drives
    if path.anchor or ".." in path.parts:
        raise RequestError(f"{archive} is refused: its member {name!r} leaves the folder")
    if not is_plain:
        raise RequestError(f"{archive} is refused: its member {name!r} is no plain file")


def _say(archive: Path, number: int, report: Report) -> None:
    if number % MEMBERS_BETWEEN_LINES == 0:
        report(f"{archive.name}: {number:,} files unpacked")
