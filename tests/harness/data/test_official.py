"""Official files: which are there, and whether they are as published."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
from pathlib import Path

import pytest

from harness.data.official import forms, identify, place_of
from harness.errors import RequestError

CONTENT = {"images.gz": gzip.compress(b"images", mtime=0), "labels.txt": b"labels"}
CHECKSUMS = {
    "images.gz": hashlib.md5(CONTENT["images.gz"], usedforsecurity=False).hexdigest(),
    "labels.txt": hashlib.sha256(b"labels").hexdigest(),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a task, with both files as published."""
    for name, content in CONTENT.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_published_files_are_official_whatever_is_accepted(folder: Path) -> None:
    expected = hashlib.sha256(" ".join(CHECKSUMS.values()).encode()).hexdigest()
    for accept in ("official", "unofficial"):
        assert identify(folder, CHECKSUMS, "mine", accept) == ("official", expected)


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
def test_a_changed_file_is_refused_or_unofficial(folder: Path, algorithm: str) -> None:
    name = "images.gz" if algorithm == "MD5" else "labels.txt"
    _, official = identify(folder, CHECKSUMS, "mine", "official")
    (folder / name).write_bytes(b"other")
    with pytest.raises(RequestError, match=rf"its {algorithm} is .* accept=unofficial uses it if"):
        identify(folder, CHECKSUMS, "mine", "official")
    source, fingerprint = identify(folder, CHECKSUMS, "mine", "unofficial")
    assert source == "unofficial"
    (folder / name).write_bytes(b"another")
    _, again = identify(folder, CHECKSUMS, "mine", "unofficial")
    assert len({official, fingerprint, again}) == 3


@pytest.mark.parametrize("accept", ["official", "unofficial"])
def test_a_missing_file_is_never_accepted(folder: Path, accept: str) -> None:
    (folder / "labels.txt").unlink()
    with pytest.raises(RequestError, match=r"labels\.txt: No such file .*data fetch mine"):
        identify(folder, CHECKSUMS, "mine", accept)


def test_a_file_without_its_compression_is_found_unless_the_published_one_is_there(
    folder: Path,
) -> None:
    unpacked = folder / "images"
    unpacked.write_bytes(b"images")
    assert place_of(folder, "images.gz") == folder / "images.gz"
    (folder / "images.gz").unlink()
    assert place_of(folder, "images.gz") == unpacked
    assert identify(folder, CHECKSUMS, "mine", "unofficial")[0] == "unofficial"
    with pytest.raises(RequestError, match=r"cannot read .*images\.gz"):
        identify(folder, CHECKSUMS, "mine", "official")


def test_files_are_listed_with_their_forms(folder: Path) -> None:
    (folder / "labels.txt").write_bytes(b"other")
    (folder / "notes.txt").write_bytes(b"twelve bytes")
    (folder / ".hidden").touch()
    with tarfile.open(folder / "repacked.tar.xz", "w:xz") as archive:
        archive.add(folder / "labels.txt", "labels.txt")
    size = (folder / "repacked.tar.xz").stat().st_size
    assert list(forms(folder, {**CHECKSUMS, "third": "0" * 32})) == [
        ("images.gz", "as published"),
        ("labels.txt", "differs from the published file"),
        ("third", "missing"),
        ("notes.txt", "not read (12 B)"),
        ("repacked.tar.xz", f"an archive, of which only unpacked files are read ({size} B)"),
    ]


def test_a_missing_folder_has_no_files(tmp_path: Path) -> None:
    assert list(forms(tmp_path / "nowhere", {"a": "0" * 32})) == [("a", "missing")]
