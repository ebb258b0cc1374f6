"""Frames in NYU's two formats, written here byte for byte as published, and what goes wrong."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

from harness.command_line import main
from harness.data.cache import VARIABLE
from harness.data.description import APPLE_DOUBLE
from harness.errors import RequestError
from harness.registry import Registry
from tasks.nyu import data
from tasks.nyu.readers import LabelledFrames, SingleFrames, official_split
from tasks.nyu.settings import DEPTH, FILES, FRAMES, SPLIT, WEIGHTS

LABELLED = replace(DEPTH, frames="labelled")
SINGLE = replace(DEPTH, frames="single")
SCENES = ["kitchen_0001", "kitchen_0001", "study_0002", "cafe_0003", "cafe_0003"]
GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (5, 60, 80, 3), np.uint8).repeat(8, 1).repeat(8, 2)
DEPTHS = GENERATOR.uniform(1, 9, (5, 60, 80)).astype(np.float32).repeat(8, 1).repeat(8, 2)
"""Five frames of 480x640, rows first."""


def write_labelled(path: Path, **changes: Any) -> None:
    """Write frames as MATLAB 7.3 does: a block of text, then HDF5 with its axes in reverse."""
    contents = {
        "images": IMAGES.transpose(0, 3, 2, 1),
        "depths": DEPTHS.transpose(0, 2, 1),
        "scenes": SCENES,
        **changes,
    }
    with h5py.File(path, "w", userblock_size=512) as file:
        for name in ("images", "depths"):
            if contents[name] is not None:
                file.create_dataset(name, data=contents[name], compression=1)
        references = file.create_dataset("scenes", (1, len(contents["scenes"])), h5py.ref_dtype)
        for number, scene in enumerate(contents["scenes"]):
            letters = np.array([[ord(letter)] for letter in scene], np.uint16)
            references[0, number] = file.create_dataset(f"#refs#/{number}", data=letters).ref
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + bytes(8) + b"\0\2IM")


def write_split(path: Path, train: Any = (1, 2, 3), test: Any = (4, 5)) -> None:
    columns = {"trainNdxs": train, "testNdxs": test}
    contents = {k: np.array(v)[:, None] for k, v in columns.items() if v is not None}
    contents = {k: v.astype(np.uint16) if v.dtype == np.int64 else v for k, v in contents.items()}
    scipy.io.savemat(path, contents)


def write_single(
    path: Path, number: int = 0, compression: str | None = "gzip", **changes: Any
) -> None:
    contents = {"rgb": IMAGES[number].transpose(2, 0, 1), "depth": DEPTHS[number], **changes}
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in contents.items():
            if values is not None:
                file.create_dataset(
                    name, data=values, compression=compression if np.ndim(values) else None
                )


def count_as_official(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what lies there be the official files, for once."""
    md5 = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in (FRAMES, SPLIT)}
    monkeypatch.setattr(data, "FILES", {name: ("", checksum) for name, checksum in md5.items()})


@pytest.fixture
def labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with the two files of the labelled frames."""
    folder = tmp_path / "nyu"
    folder.mkdir()
    write_labelled(folder / FRAMES)
    write_split(folder / SPLIT)
    count_as_official(folder, monkeypatch)
    return tmp_path


@pytest.fixture
def single(tmp_path: Path) -> Path:
    """A data folder with single frames: four of three scenes, one to test on."""
    folder = tmp_path / "nyu" / "nyudepthv2"
    for number, scene in enumerate(SCENES[:4]):
        write_single(folder / "train" / scene / f"{number + 1:05}.h5", number)
    write_single(folder / "val" / "official" / "00001.h5", 4)
    return tmp_path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of each test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv(VARIABLE, str(folder))
    return folder


def caches(cache: Path) -> list[Path]:
    return [path for path in cache.glob("nyu/decoded-*") if path.is_dir()]


# What is read


def test_matlabs_axes_are_turned_back(labelled: Path) -> None:
    frames = LabelledFrames(labelled / "nyu" / FRAMES)
    assert frames.scenes == SCENES
    for number in range(5):
        assert np.array_equal(frames.image(number), IMAGES[number].transpose(2, 0, 1))
        assert np.array_equal(frames.depth(number), DEPTHS[number])


def test_the_official_split_counts_from_one(labelled: Path) -> None:
    assert official_split(labelled / "nyu" / SPLIT, 5) == ([0, 1, 2], [3, 4])


def test_single_frames_lie_by_scene(single: Path) -> None:
    frames = SingleFrames(single / "nyu" / "nyudepthv2")
    assert frames.split() == ([0, 1, 2, 3], [4])
    assert frames.scenes == ["cafe_0003", "kitchen_0001", "kitchen_0001", "study_0002", "official"]
    for number, source in enumerate([3, 0, 1, 2, 4]):
        assert np.array_equal(frames.image(number), IMAGES[source].transpose(2, 0, 1))
        assert np.array_equal(frames.depth(number), DEPTHS[source])


def test_frames_are_decoded_to_every_second_pixel_and_test_depths_stay_whole(
    labelled: Path,
) -> None:
    parts = data.read(LABELLED, labelled)
    assert {name: len(part.images) for name, part in parts.items()} == {
        "train": 1,
        "validation": 2,  # the scene kitchen_0001
        "test": 2,
    }
    assert np.array_equal(parts["train"].images, IMAGES.transpose(0, 3, 1, 2)[2:3, :, ::2, ::2])
    assert np.array_equal(parts["train"].depths, DEPTHS[2:3, ::2, ::2])
    assert np.array_equal(parts["validation"].depths, DEPTHS[:2])
    assert np.array_equal(parts["test"].depths, DEPTHS[3:])


@pytest.mark.parametrize("unknown", [np.nan, np.inf, -np.inf, -1.0])
def test_a_depth_that_is_no_positive_number_is_unknown(
    labelled: Path, single: Path, monkeypatch: pytest.MonkeyPatch, unknown: float
) -> None:
    depths = DEPTHS.copy()
    depths[:, ::3] = unknown
    write_labelled(labelled / "nyu" / FRAMES, depths=depths.transpose(0, 2, 1))
    count_as_official(labelled / "nyu", monkeypatch)
    for number, frame in enumerate(sorted((single / "nyu").glob("nyudepthv2/*/*/*.h5"))):
        write_single(frame, number, depth=depths[number])
    for settings, folder in ((LABELLED, labelled), (SINGLE, single)):
        for part in data.read(settings, folder).values():
            assert 0 < (part.depths == 0).mean() < 0.5
            assert np.isfinite(part.depths).all()
            assert part.depths.min() == 0


def test_both_formats_give_the_same_frames(labelled: Path, single: Path) -> None:
    first, second = data.read(LABELLED, labelled), data.read(SINGLE, single)
    assert np.array_equal(first["test"].images[1], second["test"].images[0])
    assert np.array_equal(first["test"].depths[1], second["test"].depths[0])


def test_frames_are_decoded_once(labelled: Path) -> None:
    before = data.read(LABELLED, labelled)["train"].depths.copy()
    (labelled / "nyu" / FRAMES).unlink()
    (labelled / "nyu" / FRAMES).touch()
    with pytest.raises(RequestError, match="truncated or changed"):
        data.read(LABELLED, labelled)
    write_labelled(labelled / "nyu" / FRAMES)
    assert np.array_equal(data.read(LABELLED, labelled)["train"].depths, before)


def test_decoding_that_was_interrupted_begins_anew(labelled: Path, cache: Path) -> None:
    data.read(LABELLED, labelled)
    (folder,) = caches(cache)
    folder.rename(folder.with_name(f"{folder.name}.unfinished"))
    assert len(data.read(LABELLED, labelled)["test"].images) == 2
    assert not list(cache.glob("nyu/*.unfinished"))


def test_reading_leaves_the_data_folder_alone(labelled: Path, single: Path) -> None:
    before = sorted(labelled.glob("nyu/**/*"))
    data.read(LABELLED, labelled)
    data.read(SINGLE, single)
    assert sorted(labelled.glob("nyu/**/*")) == before


def test_other_frames_of_the_same_names_and_sizes_are_decoded_anew(
    single: Path, tmp_path: Path, cache: Path
) -> None:
    def first_depth(folder: Path) -> float:
        return float(data.read(SINGLE, folder)["test"].depths[0, 0, 0])

    shutil.copytree(single / "nyu", tmp_path / "elsewhere" / "nyu")
    found, known_as = [], set()
    for number, folder in enumerate((single, single, tmp_path / "elsewhere")):
        frame = folder / "nyu" / "nyudepthv2" / "val" / "official" / "00001.h5"
        write_single(frame, number, compression=None)
        found.append(first_depth(folder))
        known_as.add(data.describe("paper", SINGLE, folder).sha256)
    assert found == [DEPTHS[number][0, 0] for number in range(3)]
    assert len(caches(cache)) == 3
    assert len(known_as) == 1


# The parts


def test_validation_frames_are_whole_scenes_and_about_a_tenth() -> None:
    scenes = [f"scene_{number // 5}" for number in range(200)]
    found = data.parts(range(150), range(150, 200), scenes)
    assert sorted([*found["train"], *found["validation"]]) == list(range(150))
    assert list(found["test"]) == list(range(150, 200))
    assert len(found["validation"]) == 15
    in_training = {scenes[number] for number in found["train"]}
    assert not in_training & {scenes[number] for number in found["validation"]}


def test_a_single_scene_cannot_be_divided() -> None:
    with pytest.raises(RequestError, match="of 1 scene; 2 are needed"):
        data.parts([0, 1], [2], ["a", "a", "b"])


# What the data are


def test_the_labelled_frames_are_official(labelled: Path) -> None:
    description = data.describe("paper", LABELLED, labelled)
    assert (description.source, description.name) == ("official", "NYU Depth v2, labelled")


def test_labelled_frames_in_another_file_are_unofficial(
    labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = replace(LABELLED, accept="unofficial")
    as_published = data.describe("paper", LABELLED, labelled)
    assert data.describe("paper", accepted, labelled) == as_published
    with (labelled / "nyu" / FRAMES).open("ab") as file:
        file.write(b"more")
    with pytest.raises(RequestError, match="accept=unofficial uses it if the data are complete"):
        data.describe("paper", LABELLED, labelled)
    with pytest.raises(RequestError, match="has 5 frames, not 1,449: the data are not complete"):
        data.describe("paper", accepted, labelled)
    monkeypatch.setattr(data, "PUBLISHED_FRAMES", 5)
    described = data.describe("paper", accepted, labelled)
    assert described.source == "unofficial"
    assert described.name == "NYU Depth v2, labelled, other files"
    assert described.sha256 != as_published.sha256
    assert len(data.read(accepted, labelled)["test"].images) == 2


def test_single_frames_are_real_since_no_checksum_tells_whose_they_are(single: Path) -> None:
    first = data.describe("paper", SINGLE, single)
    assert first.source == "real"
    (single / "nyu" / "nyudepthv2" / "train" / "cafe_0003" / "00004.h5").rename(
        single / "nyu" / "nyudepthv2" / "train" / "cafe_0003" / "00009.h5"
    )
    assert data.describe("paper", SINGLE, single).sha256 != first.sha256


def test_what_is_downloaded_is_what_is_checked() -> None:
    downloads = Registry().find("task", "nyu").arguments["downloads"]
    assert downloads is FILES
    assert set(downloads) == {FRAMES, SPLIT, *WEIGHTS.values()}
    assert all(address.endswith(f"/{name}") for name, (address, _) in downloads.items())


def test_a_large_file_is_checked_once(labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data.describe("paper", LABELLED, labelled)

    def refuse(*arguments: Any) -> None:
        raise AssertionError("it was read again")

    monkeypatch.setattr(hashlib, "file_digest", refuse)
    data.describe("paper", LABELLED, labelled)


def test_describing_the_data_does_not_import_torch() -> None:
    program = """
import sys
from pathlib import Path
from tasks.nyu.data import describe
from tasks.nyu.settings import PROFILES
print(describe("smoke", PROFILES["smoke"], Path()).source)
assert "torch" not in sys.modules
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.stdout.strip() == "synthetic", ended.stderr


# What is refused


def refusal(read: Callable[[], object]) -> str:
    with pytest.raises(RequestError) as refused:
        read()
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("name", [FRAMES, SPLIT])
def test_a_missing_or_changed_official_file_is_refused(labelled: Path, name: str) -> None:
    file = labelled / "nyu" / name
    file.write_bytes(file.read_bytes()[:-1])
    complaint = refusal(lambda: data.describe("paper", LABELLED, labelled))
    assert f"{file} is truncated or changed: its MD5 is" in complaint
    file.unlink()
    complaint = refusal(lambda: data.describe("paper", LABELLED, labelled))
    assert f"cannot read {file}: No such file" in complaint
    assert "python -m harness data fetch nyu" in complaint


WRONG_LABELLED: dict[str, tuple[dict[str, Any], str]] = {
    "no images": ({"images": None}, "has no data set 'images'"),
    "no depths": ({"depths": None}, "has no data set 'depths'"),
    "rows first": (
        {"images": np.zeros((5, 480, 640, 3), np.uint8)},
        "'images' has the shape (5, 480, 640, 3), not (n, 3, 640, 480)",
    ),
    "fractions": (
        {"images": np.zeros((5, 3, 640, 480), np.float32)},
        "'images' holds float32, not uint8",
    ),
    "millimetres": (
        {"depths": np.zeros((5, 640, 480), np.uint16)},
        "'depths' holds uint16, not float32",
    ),
    "a missing pair": (
        {"depths": np.zeros((4, 640, 480), np.float32)},
        "has 5 images, 4 depths and 5 scenes, which do not match",
    ),
    "a missing scene": (
        {"scenes": SCENES[:4]},
        "has 5 images, 5 depths and 4 scenes, which do not match",
    ),
}


@pytest.mark.parametrize("case", WRONG_LABELLED)
def test_wrong_labelled_frames_are_refused(case: str, tmp_path: Path) -> None:
    changes, complaint = WRONG_LABELLED[case]
    write_labelled(tmp_path / FRAMES, **changes)
    found = refusal(lambda: LabelledFrames(tmp_path / FRAMES))
    assert complaint in found
    assert str(tmp_path / FRAMES) in found


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "does not exist"),
        (b"", "is truncated, or not an HDF5 file"),
        (b"MATLAB 5.0 MAT-file" + bytes(1000), "is truncated, or not an HDF5 file"),
    ],
)
def test_what_is_no_hdf5_is_refused(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    if content is not None:
        (tmp_path / FRAMES).write_bytes(content)
    assert complaint in refusal(lambda: LabelledFrames(tmp_path / FRAMES))


def test_a_truncated_hdf5_is_refused(tmp_path: Path) -> None:
    write_labelled(tmp_path / FRAMES)
    whole = (tmp_path / FRAMES).read_bytes()
    (tmp_path / FRAMES).write_bytes(whole[: len(whole) // 2])
    assert "is truncated, or not an HDF5 file" in refusal(lambda: LabelledFrames(tmp_path / FRAMES))


def test_damaged_pixels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / FRAMES
    write_labelled(path)
    with h5py.File(path) as file:
        chunk = file["images"].id.get_chunk_info(0)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(bytes(chunk.size))
    frames = LabelledFrames(path)
    assert "'images' cannot be read" in refusal(lambda: frames.image(0))


WRONG_SPLIT: dict[str, tuple[dict[str, Any], str]] = {
    "no test frames": ({"test": None}, "has no 'testNdxs'"),
    "counting from zero": ({"train": (0, 1, 2)}, "names frame 0, where the frames are 1 to 5"),
    "too many": ({"test": (4, 6)}, "names frame 6, where the frames are 1 to 5"),
    "none": ({"test": ()}, "'testNdxs' does not hold frame numbers"),
    "names": ({"test": ("a", "b")}, "'testNdxs' does not hold frame numbers"),
    "fractions": ({"test": (4.0, 4.5)}, "names frame 4.5, where the frames are 1 to 5"),
    "no number": ({"test": (4.0, np.nan)}, "names frame nan, where the frames are 1 to 5"),
    "overlap": ({"test": (3, 4)}, "has frame 3 in both training and test"),
}


@pytest.mark.parametrize("case", WRONG_SPLIT)
def test_a_wrong_split_is_refused(case: str, tmp_path: Path) -> None:
    changes, complaint = WRONG_SPLIT[case]
    write_split(tmp_path / SPLIT, **changes)
    assert complaint in refusal(lambda: official_split(tmp_path / SPLIT, 5))


@pytest.mark.parametrize("content", [b"", b"MATLAB", bytes(300), b"trainNdxs = 1:795;" * 30])
def test_a_split_that_is_no_matlab_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / SPLIT).write_bytes(content)
    complaint = refusal(lambda: official_split(tmp_path / SPLIT, 5))
    assert "is truncated, or not a MATLAB file" in complaint


def test_a_truncated_split_is_refused(tmp_path: Path) -> None:
    write_split(tmp_path / SPLIT, train=range(1, 300))
    whole = (tmp_path / SPLIT).read_bytes()
    (tmp_path / SPLIT).write_bytes(whole[:400])
    complaint = refusal(lambda: official_split(tmp_path / SPLIT, 1000))
    assert "is truncated, or not a MATLAB file" in complaint


WRONG_SINGLE: dict[str, tuple[dict[str, Any], str]] = {
    "no depth": ({"depth": None}, "has no data set 'depth'"),
    "no picture": ({"rgb": None}, "has no data set 'rgb'"),
    "rows first": (
        {"rgb": np.zeros((480, 640, 3), np.uint8)},
        "'rgb' has the shape (480, 640, 3), not (3, 480, 640)",
    ),
    "another size": (
        {"depth": np.zeros((240, 320), np.float32)},
        "'depth' has the shape (240, 320), not (480, 640)",
    ),
    "no pixels": (
        {"depth": np.zeros((0, 640), np.float32)},
        "'depth' has the shape (0, 640), not (480, 640)",
    ),
    "a single number": (
        {"depth": h5py.Empty("f4"), "rgb": IMAGES[0]},
        "'rgb' has the shape (480, 640, 3), not (3, 480, 640)",
    ),
    "doubles": ({"depth": DEPTHS[0].astype(np.float64)}, "'depth' holds float64, not float32"),
}


@pytest.mark.parametrize("case", WRONG_SINGLE)
def test_a_wrong_single_frame_is_refused(case: str, single: Path, cache: Path) -> None:
    changes, complaint = WRONG_SINGLE[case]
    wrong = single / "nyu" / "nyudepthv2" / "train" / "study_0002" / "00003.h5"
    write_single(wrong, 2, **changes)
    found = refusal(lambda: data.read(SINGLE, single))
    assert complaint in found
    assert str(wrong) in found
    assert not caches(cache)


def test_a_truncated_single_frame_is_refused(single: Path) -> None:
    wrong = single / "nyu" / "nyudepthv2" / "val" / "official" / "00001.h5"
    wrong.write_bytes(wrong.read_bytes()[:3000])
    assert f"{wrong} is truncated" in refusal(lambda: data.read(SINGLE, single))


@pytest.mark.parametrize("part", ["train", "val"])
def test_an_empty_part_is_refused(part: str, single: Path) -> None:
    folder = single / "nyu" / "nyudepthv2"
    (folder / part).rename(folder / "elsewhere")
    complaint = refusal(lambda: data.describe("paper", SINGLE, single))
    assert f"there are no files {folder / part}" in complaint


def test_the_command_line_says_what_is_there_and_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", "nyu", "--data", str(tmp_path)]) == 2
    output = capsys.readouterr()
    assert "rendered rooms" in output.out
    assert f"cannot read {tmp_path / 'nyu' / FRAMES}" in output.err
    assert len(output.err.splitlines()) == 1


# What the system, or another program, does


def test_a_file_that_another_program_writes_is_said_to_be_locked(labelled: Path) -> None:
    path = labelled / "nyu" / FRAMES
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        complaint = refusal(lambda: LabelledFrames(path))
    assert complaint.startswith(f"nyu: {path} is locked: another program has it open for writing")
    assert LabelledFrames(path).scenes == SCENES


def test_a_file_system_without_locks_is_no_obstacle(
    labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = h5py.File

    def opened(path: Path, mode: str, locking: bool | None = None) -> Any:
        if locking is None:
            said = "Unable to synchronously open file (unable to lock file, errno = 37)"
            raise OSError(errno.ENOLCK, said)
        return real(path, mode, locking=locking)

    monkeypatch.setattr(h5py, "File", opened)
    assert LabelledFrames(labelled / "nyu" / FRAMES).scenes == SCENES


def test_a_frame_that_is_a_folder_is_named(single: Path) -> None:
    folder = single / "nyu" / "nyudepthv2" / "train" / "cafe_0003" / "00009.h5"
    folder.mkdir()
    assert f"cannot read {folder}: Is a directory" in refusal(lambda: data.read(SINGLE, single))


def test_what_systems_leave_beside_frames_is_no_frame(single: Path) -> None:
    expected = data.describe("paper", SINGLE, single)
    folder = single / "nyu" / "nyudepthv2"
    for frame in folder.glob("*/*/*.h5"):
        frame.with_name(f"._{frame.name}").write_bytes(APPLE_DOUBLE + bytes(200))
        frame.with_name(".DS_Store").touch()
        frame.with_name("Thumbs.db").touch()
    assert data.describe("paper", SINGLE, single) == expected
    assert len(data.read(SINGLE, single)["test"].images) == 1


def test_what_macos_keeps_beside_a_file_is_named_if_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "._frames.mat").write_bytes(APPLE_DOUBLE + bytes(200))
    complaint = refusal(lambda: LabelledFrames(tmp_path / "._frames.mat"))
    assert "is a metadata file of macOS" in complaint


def test_frames_may_lie_behind_a_link_with_spaces_and_umlauts(single: Path) -> None:
    expected = data.describe("paper", SINGLE, single)
    (single / "nyu" / "nyudepthv2").rename(single / "die großen Bilder")
    (single / "nyu" / "nyudepthv2").symlink_to(single / "die großen Bilder")
    assert data.describe("paper", SINGLE, single) == expected
    assert len(data.read(SINGLE, single)["test"].images) == 1


def test_a_name_that_is_no_utf_8_is_a_name(single: Path) -> None:
    train = single / "nyu" / "nyudepthv2" / "train"
    (train / "cafe_0003").rename(os.fsdecode(os.fsencode(train) + b"/caf\xe9"))
    assert len(data.read(SINGLE, single)["test"].images) == 1
