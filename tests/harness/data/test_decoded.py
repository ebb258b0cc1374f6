"""Arrays that are decoded once, and the failures that this has to survive."""

from __future__ import annotations

import errno
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from harness.data.decoded import Save, decoded
from harness.errors import RequestError

Remount = Callable[[Path, str], None]

NAMES = ("numbers", "part/pictures")


def decode(save: Save) -> None:
    save("numbers", np.int64, [1, 2, 3])
    save("part/pictures", lambda number: np.full((2, 2), number, np.uint8), range(5))


class Counted:
    """A decoder that counts its calls."""

    def __init__(self, decode: Callable[[Save], None] = decode) -> None:
        self.decode = decode
        self.calls = 0

    def __call__(self, save: Save) -> None:
        self.calls += 1
        self.decode(save)


def test_arrays_are_decoded_once_and_memory_mapped(tmp_path: Path) -> None:
    counted = Counted()
    first = decoded(tmp_path / "cache", NAMES, counted)
    again = decoded(tmp_path / "cache", NAMES, counted)
    assert counted.calls == 1
    for arrays in (first, again):
        assert isinstance(arrays["numbers"], np.memmap)
        assert arrays["numbers"].tolist() == [1, 2, 3]
        assert arrays["part/pictures"].shape == (5, 2, 2)
        assert arrays["part/pictures"].dtype == np.uint8
        assert arrays["part/pictures"][:, 1, 1].tolist() == [0, 1, 2, 3, 4]


def test_writing_to_an_array_does_not_change_its_file(tmp_path: Path) -> None:
    decoded(tmp_path / "cache", NAMES, decode)["numbers"][0] = 9
    assert decoded(tmp_path / "cache", NAMES, decode)["numbers"].tolist() == [1, 2, 3]


def test_a_transposed_view_is_written_in_c_order(tmp_path: Path) -> None:
    wide = np.arange(12).reshape(1, 3, 4).transpose(0, 2, 1)
    arrays = decoded(tmp_path / "cache", ["wide"], lambda save: save("wide", wide.__getitem__, [0]))
    assert np.array_equal(arrays["wide"], wide)


def test_a_decoder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(save: Save) -> None:
        decode(save)
        raise RequestError("the archive is damaged")

    with pytest.raises(RequestError, match="the archive is damaged"):
        decoded(tmp_path / "cache", NAMES, fail)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_half_written_folder_is_replaced(tmp_path: Path) -> None:
    left = tmp_path / "cache.unfinished"
    left.mkdir()
    (left / "numbers.npy").write_bytes(b"half")
    assert decoded(tmp_path / "cache", NAMES, decode)["numbers"].tolist() == [1, 2, 3]
    assert not left.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-1]),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"no array"),
        lambda file: file.unlink(),
    ],
    ids=["cut short", "empty", "another file", "missing"],
)
def test_a_damaged_cache_is_decoded_again(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    counted = Counted()
    kept = decoded(tmp_path / "cache", NAMES, counted)
    damage(tmp_path / "cache" / "part" / "pictures.npy")
    arrays = decoded(tmp_path / "cache", NAMES, counted)
    assert counted.calls == 2
    assert arrays["part/pictures"][:, 1, 1].tolist() == [0, 1, 2, 3, 4]
    assert kept["numbers"].tolist() == [1, 2, 3], "those who had it open still have it"
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["cache"]


REMEDY = r"; --cache DIR, or the environment variable PRUNING_BENCHMARK_CACHE, names another folder"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match=rf"cannot write .*file/cache: .*{REMEDY}"):
        decoded(tmp_path / "file" / "cache", NAMES, decode)


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(RequestError, match=rf"cannot write .*cache: .*Not a directory{REMEDY}"):
        decoded(tmp_path / "cache", NAMES, decode)


def test_errors_of_reading_and_of_writing_are_distinguished(tmp_path: Path) -> None:
    def read(number: int) -> np.int64:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "frame 7")

    def open_none(save: Save) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "archive")

    with pytest.raises(RequestError, match=r"^cannot read the data to decode: frame 7: Input"):
        decoded(tmp_path / "cache", NAMES, lambda save: save("numbers", read, [1]))
    with pytest.raises(RequestError, match=r"^cannot decode into .*cache: archive: No such file"):
        decoded(tmp_path / "cache", NAMES, open_none)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_full_disk_is_reported_and_leaves_nothing(small_disk: Path) -> None:
    def too_much(save: Save) -> None:
        save("numbers", lambda number: np.zeros(2**14, np.uint8), range(64))

    with pytest.raises(RequestError, match=rf"cannot write .*cache: No space left.*{REMEDY}"):
        decoded(small_disk / "cache", ["numbers"], too_much)
    assert not [path for path in small_disk.iterdir() if path.is_dir()]
    assert decoded(small_disk / "cache", NAMES, decode)["numbers"].tolist() == [1, 2, 3]


def not_again(save: Save) -> None:
    pytest.fail("it is decoded again")


def test_a_finished_cache_may_be_read_only(small_disk: Path, remount: Remount) -> None:
    decoded(small_disk / "cache", NAMES, decode)
    remount(small_disk, "ro")
    assert decoded(small_disk / "cache", NAMES, not_again)["numbers"].tolist() == [1, 2, 3]
    with pytest.raises(RequestError, match=rf"cannot write .*other: .*Read-only.*{REMEDY}"):
        decoded(small_disk / "other", NAMES, decode)


@pytest.mark.parametrize("answer", [NotImplementedError("no flock"), OSError(errno.ENOLCK, "")])
def test_without_locks_the_first_folder_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Exception
) -> None:
    def refuse(lock: FileLock) -> None:
        raise answer

    def decode_beside_another(save: Save) -> None:
        decoded(tmp_path / "cache", NAMES, decode)
        decode(save)

    monkeypatch.setattr(FileLock, "acquire", refuse)
    arrays = decoded(tmp_path / "cache", NAMES, decode_beside_another)
    assert arrays["numbers"].tolist() == [1, 2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def _decode_slowly(save: Save) -> None:
    time.sleep(0.5)
    decode(save)


def _calls(folder: Path) -> int:
    counted = Counted(_decode_slowly)
    assert decoded(folder, NAMES, counted)["numbers"].tolist() == [1, 2, 3]
    return counted.calls


def test_only_one_of_several_processes_decodes(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert sum(pool.map(_calls, [tmp_path / "cache"] * 2, chunksize=1)) == 1
