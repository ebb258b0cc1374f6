"""Files appear whole or not at all, and damage to a saved state is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.contracts import Killed
from harness.errors import RunFailed
from harness.storage import files
from tests.helpers.disk import (
    FailingDisk,
    Operation,
    full_disk,
    operation_number,
    read_only_folder,
    when,
)


def test_a_file_appears_whole(tmp_path: Path) -> None:
    files.write(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("operation", ["write", "move"])
def test_a_file_keeps_its_content_if_the_process_is_killed(
    tmp_path: Path, operation: Operation
) -> None:
    files.write(tmp_path / "file", b"old")
    with FailingDisk(when(operation)).in_use(), pytest.raises(Killed):
        files.write(tmp_path / "file", b"new content")
    assert (tmp_path / "file").read_bytes() == b"old"
    files.remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("operation", ["write", "move"])
def test_a_full_disk_is_reported_in_one_line_and_leaves_nothing(
    tmp_path: Path, operation: Operation
) -> None:
    broken = FailingDisk(when(operation), full_disk)
    expected = rf"^cannot write {tmp_path / 'file'}: No space left on device$"
    with broken.in_use(), pytest.raises(RunFailed, match=expected):
        files.write(tmp_path / "file", b"content")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_permission_is_reported_in_one_line(tmp_path: Path) -> None:
    broken = FailingDisk(operation_number(1), read_only_folder)
    for change in (
        lambda path: files.write(path, b"content"),
        lambda path: files.append(path, b"content"),
        files.remove,
    ):
        with broken.in_use(), pytest.raises(RunFailed, match=r"file: Permission denied$"):
            change(tmp_path / "file")


def test_a_state_comes_back(tmp_path: Path) -> None:
    weights = torch.tensor([0.1, -0.0])
    files.save_state(tmp_path / "state", {"weights": weights, "position": 3})
    loaded = files.load_state(tmp_path / "state")
    assert loaded is not None
    assert torch.equal(loaded["weights"], weights)
    assert loaded["position"] == 3


def test_every_flipped_byte_of_a_state_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "state"
    files.save_state(path, {"weights": torch.arange(4.0)})
    content = path.read_bytes()
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1
        path.write_bytes(flipped)
        assert files.load_state(path) is None


@pytest.mark.parametrize("length", [0, 1, 31, 32, 100, -1])
def test_a_truncated_state_is_noticed(tmp_path: Path, length: int) -> None:
    path = tmp_path / "state"
    files.save_state(path, {"weights": torch.arange(4.0)})
    path.write_bytes(path.read_bytes()[:length])
    assert files.load_state(path) is None


def test_a_missing_state_is_none(tmp_path: Path) -> None:
    assert files.load_state(tmp_path / "state") is None
