"""The published checksum of a file, and files that do not have it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from harness.checksum import md5, require_md5
from harness.errors import RequestError


def test_the_checksum_follows_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert md5(path) == "900150983cd24fb0d6963f7d28e17f72"  # RFC 1321
    path.write_bytes(b"abcd")
    assert md5(path) == hashlib.md5(b"abcd").hexdigest()


def test_a_file_is_read_once_for_as_long_as_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    first = md5(path)
    monkeypatch.setattr("hashlib.file_digest", lambda *arguments: pytest.fail("read again"))
    assert md5(path) == first


def test_another_file_or_none_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(RequestError, match=r"cannot read .*file: No such file .*data fetch mine"):
        require_md5(path, md5(Path(__file__)), "mine")
    path.write_bytes(b"abc")
    require_md5(path, "900150983cd24fb0d6963f7d28e17f72", "mine")
    with pytest.raises(RequestError, match=r"is 900150.* and not 0+; remove it, and .*fetch mine"):
        require_md5(path, "0" * 32, "mine")
