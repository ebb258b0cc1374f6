"""Files from the network: gone on with after an interruption, and checked before they are used."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from pathlib import Path

from harness.data.checksum import checksum, kind
from harness.errors import RequestError, RunFailed
from harness.results.summary import size

PIECE = 1 << 16
"""Bytes between two lines of progress."""
TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as lost."""

Report = Callable[[str], None]
"""Takes a line that says how far a download has come."""


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
