"""Checking files against their published checksums."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from harness.data.download import file_checksum, require_checksum
from harness.errors import RequestError


def test_the_checksum_follows_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert file_checksum(path, "MD5") == "900150983cd24fb0d6963f7d28e17f72"  # RFC 1321
    assert file_checksum(path, "SHA-256").startswith("ba7816bf")  # FIPS 180-2
    path.write_bytes(b"abcd")
    assert file_checksum(path, "MD5") == hashlib.md5(b"abcd").hexdigest()


def test_an_unchanged_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    first = file_checksum(path, "MD5")
    monkeypatch.setattr("hashlib.file_digest", lambda *arguments: pytest.fail("read again"))
    assert file_checksum(path, "MD5") == first


def test_a_wrong_or_missing_file_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(RequestError, match=r"cannot read .*file: No such file .*data fetch mine"):
        require_checksum(path, "0" * 32, "mine")
    path.write_bytes(b"abc")
    for kind in ("MD5", "SHA-256"):
        expected = file_checksum(path, kind)
        require_checksum(path, expected, "mine")
        wrong = "0" * len(expected)
        complaint = f"its {kind} is {expected} and not {wrong}; remove it, and .*fetch mine"
        with pytest.raises(RequestError, match=complaint):
            require_checksum(path, wrong, "mine")
