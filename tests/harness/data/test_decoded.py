"""Arrays that are decoded once, and what can happen to them."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.data.decoded import Save, decoded
from harness.errors import RequestError

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


def test_what_is_decoded_once_is_mapped_into_memory_ever_after(tmp_path: Path) -> None:
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


def test_writing_to_an_array_leaves_its_file_alone(tmp_path: Path) -> None:
    decoded(tmp_path / "cache", NAMES, decode)["numbers"][0] = 9
    assert decoded(tmp_path / "cache", NAMES, decode)["numbers"].tolist() == [1, 2, 3]


def test_a_view_of_another_order_is_written_in_its_own(tmp_path: Path) -> None:
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


def test_what_a_killed_process_left_is_made_anew(tmp_path: Path) -> None:
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
def test_a_damaged_cache_says_what_to_remove(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    decoded(tmp_path / "cache", NAMES, decode)
    damage(tmp_path / "cache" / "part" / "pictures.npy")
    with pytest.raises(RequestError, match=r"cache is damaged; remove it to have it made again$"):
        decoded(tmp_path / "cache", NAMES, decode)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match=r"cannot write .*file/cache: "):
        decoded(tmp_path / "file" / "cache", NAMES, decode)


def _decode_slowly(save: Save) -> None:
    time.sleep(0.5)
    decode(save)


def _calls(folder: Path) -> int:
    counted = Counted(_decode_slowly)
    assert decoded(folder, NAMES, counted)["numbers"].tolist() == [1, 2, 3]
    return counted.calls


def test_of_several_processes_one_decodes(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert sum(pool.map(_calls, [tmp_path / "cache"] * 2, chunksize=1)) == 1
