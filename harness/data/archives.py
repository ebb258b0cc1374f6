"""Archives, unpacked such that nothing is written outside of its folder."""

from __future__ import annotations

import lzma
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PureWindowsPath

from harness.errors import RequestError

MEMBERS_BETWEEN_LINES = 100

Report = Callable[[str], None]
"""Takes a line that says how far the unpacking has come."""

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
