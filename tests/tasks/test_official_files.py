"""The official files of all tasks: each has an address, and a checksum that is written once."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

import tasks
from harness.registry import Registry

FOLDER = Path(str(tasks.__file__)).parent
CHECKSUM = re.compile(r'"([0-9a-f]{32}|[0-9a-f]{64})"')


def test_every_checksum_is_written_once() -> None:
    written = Counter(
        checksum
        for source in FOLDER.rglob("*.py")
        for checksum in CHECKSUM.findall(source.read_text())
    )
    assert len(written) > 15
    assert {checksum for checksum, times in written.items() if times > 1} == set()


@pytest.mark.parametrize("name", Registry().of_kind("task"))
def test_every_download_has_an_address_and_a_checksum(name: str) -> None:
    downloads = Registry().find("task", name).arguments.get("downloads") or {}
    for file, (address, checksum, *wanted) in downloads.items():
        assert address.startswith(("http://", "https://"))
        assert address.endswith(f"/{file}")
        assert CHECKSUM.fullmatch(f'"{checksum}"')
        assert wanted in ([], ["unpack"])
