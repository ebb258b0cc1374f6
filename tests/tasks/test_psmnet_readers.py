"""Files in the formats of SceneFlow and KITTI, written byte by byte, right and wrong ones."""

from __future__ import annotations

import math
import os
import shutil
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import RequestError
from tasks.psmnet import data, official
from tasks.psmnet.formats import PairFiles, read_disparity, read_picture, write_pfm, write_picture
from tasks.psmnet.settings import STEREO


def pfm(*rows: list[float], scale: bytes = b"-1.0", kind: bytes = b"Pf") -> bytes:
    """A portable float map; the rows are given from the top."""
    order = "<" if scale.startswith(b"-") else ">"
    numbers = b"".join(struct.pack(f"{order}{len(row)}f", *row) for row in reversed(rows))
    return b"%s\n%d %d\n%s\n" % (kind, len(rows[0]), len(rows), scale) + numbers


def png(width: int, height: int, bits: int, colour_type: int, pixels: bytes) -> bytes:
    """A PNG whose rows are not filtered."""
    step = len(pixels) // height
    lines = (pixels[row * step : (row + 1) * step] for row in range(height if pixels else 0))
    rows = b"".join(b"\0" + line for line in lines)

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


PICTURE = png(2, 1, 8, 2, bytes([255, 0, 0, 0, 0, 255]))
"""A red pixel and a blue one."""
KNOWN = png(2, 1, 16, 0, struct.pack(">2H", 0, 640))
"""An unknown disparity and one of 2.5 pixels."""


def file(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("scale", [b"-1.0", b"1.0", b"-0.5"])
def test_a_pfm_has_its_rows_from_the_bottom_up(tmp_path: Path, scale: bytes) -> None:
    path = file(tmp_path, "a.pfm", pfm([1, 2, 3], [4, 5, 6], scale=scale))
    assert read_disparity(path).tolist() == [[1, 2, 3], [4, 5, 6]]


def test_disparities_lose_their_sign(tmp_path: Path) -> None:
    path = file(tmp_path, "a.pfm", pfm([-1.5, 2.0]))
    assert read_disparity(path).tolist() == [[1.5, 2.0]]


@pytest.mark.parametrize("scale", [b"-1.0", b"1.0"])
def test_a_disparity_that_is_no_finite_number_is_unknown(tmp_path: Path, scale: bytes) -> None:
    content = pfm([math.nan, math.inf, -math.inf, 0.0, 2.5], scale=scale)
    assert read_disparity(file(tmp_path, "a.pfm", content)).tolist() == [[0, 0, 0, 0, 2.5]]


def test_the_header_of_a_pfm_may_have_more_spaces(tmp_path: Path) -> None:
    content = b"Pf \n2  1 \n-1\n" + struct.pack("<2f", 7, 8)
    assert read_disparity(file(tmp_path, "a.pfm", content)).tolist() == [[7, 8]]


def test_kitti_has_steps_of_a_256th_of_a_pixel_and_0_is_unknown(tmp_path: Path) -> None:
    assert read_disparity(file(tmp_path, "a.png", KNOWN)).tolist() == [[0, 2.5]]
    largest = png(1, 1, 16, 0, b"\xff\xff")
    assert read_disparity(file(tmp_path, "b.png", largest)).tolist() == [[65535 / 256]]


def test_a_picture_has_rows_columns_and_colours(tmp_path: Path) -> None:
    picture = read_picture(file(tmp_path, "a.png", PICTURE))
    assert picture.tolist() == [[[255, 0, 0], [0, 0, 255]]]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    disparity = random.uniform(0.1, 30, (3, 5)).astype(np.float32)
    picture = random.integers(0, 256, (3, 5, 3)).astype(np.uint8)
    write_pfm(tmp_path / "a.pfm", disparity)
    write_picture(tmp_path / "a.png", picture)
    assert np.array_equal(read_disparity(tmp_path / "a.pfm"), disparity)
    assert np.array_equal(read_picture(tmp_path / "a.png"), picture)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.pfm", b"", "is not a PFM of one channel"),
        ("a.pfm", b"P5\n2 1\n255\n\0\0", "is not a PFM of one channel"),
        ("a.pfm", pfm([1, 2, 3], kind=b"PF"), "is not a PFM of one channel"),
        ("a.pfm", b"Pf\n2\n-1.0\n", "is not a PFM of one channel"),
        ("a.pfm", b"Pf\n0 4\n-1.0\n", "is not a PFM of one channel"),
        ("a.pfm", pfm([1, 2], scale=b"nan"), "is not a PFM of one channel"),
        ("a.pfm", pfm([1, 2], scale=b"-inf"), "is not a PFM of one channel"),
        ("a.pfm", b"\0\5\x16\7" + bytes(200), "is a metadata file of macOS"),
        ("a.png", b"\0\5\x16\7" + bytes(200), "is a metadata file of macOS"),
        ("a.png", png(60_000, 60_000, 16, 0, b""), "is damaged: Image size .* exceeds limit"),
        ("a.pfm", pfm([1, 2])[:-1], "has 19 bytes; 2x1 numbers need 20"),
        ("a.pfm", pfm([1, 2]) + b"\0", "has 21 bytes; 2x1 numbers need 20"),
        ("a.png", b"GIF89a", "is not a PNG"),
        ("a.png", KNOWN[:-5], "is truncated"),
        ("a.png", KNOWN[:20], "is not a PNG"),
        ("a.png", PICTURE, "is a 8-bit RGB PNG, not a PFM of one channel or a 16-bit grey PNG"),
        ("a.png", png(1, 1, 8, 0, b"\1"), "has 8 bits and colour type 0"),
        ("a.png", KNOWN.replace(b"IDAT", b"JDAT"), "is damaged"),
    ],
)
def test_a_bad_disparity_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, complaint: str
) -> None:
    path = file(tmp_path, name, content)
    with pytest.raises(RequestError, match=complaint) as refusal:
        read_disparity(path)
    assert str(refusal.value).startswith(f"psmnet: {path} ")
    assert "\n" not in str(refusal.value)


def test_a_picture_of_16_bits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is a 16-bit grey PNG, not a 8-bit RGB PNG"):
        read_picture(file(tmp_path, "a.png", KNOWN))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot be read: No such file"):
        read_picture(tmp_path / "a.png")


def test_the_files_of_a_pair_have_one_size(tmp_path: Path) -> None:
    left = file(tmp_path, "left.png", PICTURE)
    disparity = file(tmp_path, "a.pfm", pfm([1], [2]))
    with pytest.raises(RequestError, match=r"a.pfm has 1x2 pixels and .*left.png has 2x1"):
        PairFiles(left, left, disparity).load()


# SceneFlow


def film(subset: Path, name: str, *frames: str) -> None:
    for frame in frames:
        for side in ("left", "right"):
            file(subset, f"frames_cleanpass/{name}/{side}/{frame}.png", PICTURE)
        file(subset, f"disparity/{name}/left/{frame}.pfm", pfm([1, 2]))


@pytest.fixture
def scene_flow(tmp_path: Path) -> Path:
    """A data folder with few and tiny films of all three subsets."""
    root = tmp_path / "psmnet" / "SceneFlow"
    for number in reversed(range(official.FILMS_PER_VALIDATION_FILM)):
        film(root / "FlyingThings3D", f"TRAIN/A/{number:04}", "0007", "0006")
    film(root / "FlyingThings3D", "TEST/C/0003", "0006")
    film(root / "Monkaa", "treeflight_x2", "0000")
    film(root / "Driving", "15mm_focallength/scene_forwards/fast", "0001")
    return tmp_path


SCENE_FLOW = replace(STEREO, dataset="sceneflow")


def test_the_three_subsets_are_found_in_order(scene_flow: Path) -> None:
    root = scene_flow / "psmnet" / "SceneFlow"
    parts = official.find_sceneflow(root)

    def names(pairs: list[PairFiles]) -> list[str]:
        return [pair.left.relative_to(root).as_posix() for pair in pairs]

    training = names(parts.training)
    assert training[:3] == [
        f"FlyingThings3D/frames_cleanpass/TRAIN/A/{frame}.png"
        for frame in ("0000/left/0006", "0000/left/0007", "0001/left/0006")
    ]
    assert training[-2:] == [
        "Monkaa/frames_cleanpass/treeflight_x2/left/0000.png",
        "Driving/frames_cleanpass/15mm_focallength/scene_forwards/fast/left/0001.png",
    ]
    assert names(parts.validation) == [
        f"FlyingThings3D/frames_cleanpass/TRAIN/A/0019/left/{frame}.png"
        for frame in ("0006", "0007")
    ]
    assert names(parts.test) == ["FlyingThings3D/frames_cleanpass/TEST/C/0003/left/0006.png"]


def test_the_last_pair_is_read(scene_flow: Path) -> None:
    pair = data.read(SCENE_FLOW, scene_flow).training[-1]
    assert pair.left.shape == pair.right.shape == (1, 2, 3)
    assert pair.disparity.tolist() == [[1, 2]]


def test_official_data_are_official_and_known_by_their_files(scene_flow: Path) -> None:
    described = data.describe("paper", SCENE_FLOW, scene_flow)
    assert (described.source, described.name) == ("official", "SceneFlow, clean pass")
    film(scene_flow / "psmnet" / "SceneFlow" / "Monkaa", "another", "0000")
    assert data.describe("paper", SCENE_FLOW, scene_flow).sha256 != described.sha256


@pytest.mark.parametrize(
    ("missing", "complaint"),
    [
        ("frames_cleanpass/treeflight_x2/right/0000.png", "has no partner"),
        ("disparity/treeflight_x2/left/0000.pfm", "has no disparity"),
    ],
)
def test_a_pair_that_is_not_complete_is_refused(
    scene_flow: Path, missing: str, complaint: str
) -> None:
    path = scene_flow / "psmnet" / "SceneFlow" / "Monkaa" / missing
    path.unlink()
    with pytest.raises(RequestError, match=complaint) as refusal:
        data.describe("paper", SCENE_FLOW, scene_flow)
    assert str(path) in str(refusal.value)


def test_too_few_films_for_a_validation_part_are_refused(scene_flow: Path) -> None:
    things = scene_flow / "psmnet" / "SceneFlow" / "FlyingThings3D"
    shutil.rmtree(things / "frames_cleanpass" / "TRAIN" / "A" / "0000")
    with pytest.raises(RequestError, match=r"19 training films in .*; at least 20 are needed"):
        data.describe("paper", SCENE_FLOW, scene_flow)


def test_a_missing_subset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no images at .*FlyingThings3D"):
        data.describe("paper", SCENE_FLOW, tmp_path)


def test_a_truncated_file_is_found_without_reading_all(scene_flow: Path) -> None:
    monkaa = scene_flow / "psmnet" / "SceneFlow" / "Monkaa"
    path = monkaa / "frames_cleanpass" / "treeflight_x2" / "right" / "0000.png"
    path.write_bytes(PICTURE[:-1])
    with pytest.raises(RequestError, match=r"right/0000\.png is truncated"):
        data.describe("paper", SCENE_FLOW, scene_flow)


def leave_beside(folder: Path) -> None:
    """Do what macOS and Windows do in the folders that they show."""
    for path in list(folder.rglob("*")):
        if path.is_file():
            path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7" + bytes(200))
            path.with_name(".DS_Store").touch()
            path.with_name("Thumbs.db").touch()


def test_what_systems_leave_beside_images_is_no_image(scene_flow: Path) -> None:
    expected = data.describe("paper", SCENE_FLOW, scene_flow)
    leave_beside(scene_flow)
    assert data.describe("paper", SCENE_FLOW, scene_flow) == expected


def test_a_film_without_images_is_refused(scene_flow: Path) -> None:
    left = scene_flow / "psmnet/SceneFlow/Monkaa/frames_cleanpass/treeflight_x2/left"
    (left / "0000.png").rename(left / "0000.webp")
    with pytest.raises(RequestError, match=r"no images at .*treeflight_x2/left/\*\.png"):
        data.describe("paper", SCENE_FLOW, scene_flow)


def test_an_image_that_is_a_folder_is_refused(scene_flow: Path) -> None:
    right = scene_flow / "psmnet/SceneFlow/Monkaa/frames_cleanpass/treeflight_x2/right/0000.png"
    right.unlink()
    right.mkdir()
    with pytest.raises(RequestError, match=r"right/0000\.png cannot be read: Is a directory"):
        data.describe("paper", SCENE_FLOW, scene_flow)


def test_a_link_that_leads_nowhere_is_refused(scene_flow: Path) -> None:
    right = scene_flow / "psmnet/SceneFlow/Monkaa/frames_cleanpass/treeflight_x2/right/0000.png"
    right.unlink()
    right.symlink_to("nowhere.png")
    with pytest.raises(RequestError, match=r"right/0000\.png cannot be read: No such file"):
        data.describe("paper", SCENE_FLOW, scene_flow)


def test_films_may_lie_behind_links_and_in_names_of_any_encoding(scene_flow: Path) -> None:
    monkaa = scene_flow / "psmnet" / "SceneFlow" / "Monkaa"
    for kind in ("frames_cleanpass", "disparity"):
        folder = os.fsencode(monkaa / kind)
        os.rename(folder + b"/treeflight_x2", folder + b"/Gr\xf6\xdfe 2")
    monkaa.rename(scene_flow / "Ö")
    monkaa.symlink_to(scene_flow / "Ö")
    assert data.describe("paper", SCENE_FLOW, scene_flow).source == "official"
    assert data.read(SCENE_FLOW, scene_flow).training[-2].disparity.tolist() == [[1, 2]]


# KITTI

LAYOUTS = {
    "kitti2012": ("Kitti2012", "colored_0", "colored_1", "disp_occ"),
    "kitti2015": ("Kitti2015", "image_2", "image_3", "disp_occ_0"),
}


def benchmark(data_folder: Path, name: str, count: int) -> Path:
    folder, left, right, disparity = LAYOUTS[name]
    training = data_folder / "psmnet" / folder / "training"
    for number in range(count):
        for moment in ("10", "11"):
            file(training, f"{left}/{number:06}_{moment}.png", PICTURE)
            file(training, f"{right}/{number:06}_{moment}.png", PICTURE)
        file(training, f"{disparity}/{number:06}_10.png", KNOWN)
    return training


def find_kitti(
    data_folder: Path, name: str, published: int, accept: str = "official"
) -> official.Parts[list[PairFiles]]:
    """Return the pairs of a benchmark that for once has so many."""
    smaller = replace(official.BENCHMARKS[name], pairs=published)
    return official.find_kitti(data_folder / "psmnet" / LAYOUTS[name][0], smaller, accept)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_first_160_pairs_of_kitti_are_learnt_from(tmp_path: Path, name: str) -> None:
    benchmark(tmp_path, name, 162)
    parts = find_kitti(tmp_path, name, published=162)
    numbers = [
        [int(pair.left.name.removesuffix("_10.png")) for pair in part]
        for part in (parts.training, parts.validation, parts.test)
    ]
    assert numbers == [list(range(140)), list(range(140, 160)), [160, 161]]
    _, left, right, _ = LAYOUTS[name]
    assert (parts.test[0].left.parent.name, parts.test[0].right.parent.name) == (left, right)
    assert parts.test[0].load().disparity.tolist() == [[0, 2.5]]


def test_what_systems_leave_beside_kittis_images_is_no_image(tmp_path: Path) -> None:
    leave_beside(benchmark(tmp_path, "kitti2015", 161))
    parts = find_kitti(tmp_path, "kitti2015", published=161)
    assert len(parts.test) == 1


def test_kitti_without_a_right_image_is_refused(tmp_path: Path) -> None:
    training = benchmark(tmp_path, "kitti2015", 161)
    (training / "image_3" / "000007_10.png").unlink()
    with pytest.raises(RequestError, match=r"000007_10.png has no image .*image_3"):
        data.describe("paper", replace(STEREO, dataset="kitti2015"), tmp_path)


def test_kitti_with_too_few_disparities_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="0 of 194 disparities at"):
        data.describe("paper", replace(STEREO, dataset="kitti2012"), tmp_path)


def test_fewer_pairs_of_kitti_are_unofficial(tmp_path: Path) -> None:
    benchmark(tmp_path, "kitti2012", 20)
    asked = replace(STEREO, dataset="kitti2012")
    with pytest.raises(
        RequestError, match=r"20 of 194 disparities .* accept=unofficial uses those"
    ):
        data.describe("paper", asked, tmp_path)
    asked = replace(asked, accept="unofficial")
    described = data.describe("paper", asked, tmp_path)
    assert described.source == "unofficial"
    assert described.name == "KITTI stereo 2012, 20 of 194 pairs"
    parts = data.read(asked, tmp_path)
    assert (len(parts.training), len(parts.validation), len(parts.test)) == (14, 2, 4)


@pytest.mark.parametrize(("count", "sizes"), [(4, (2, 1, 1)), (9, (6, 1, 2)), (19, (13, 1, 5))])
def test_each_part_of_a_few_pairs_has_one(
    tmp_path: Path, count: int, sizes: tuple[int, int, int]
) -> None:
    benchmark(tmp_path, "kitti2015", count)
    parts = find_kitti(tmp_path, "kitti2015", published=200, accept="unofficial")
    assert (len(parts.training), len(parts.validation), len(parts.test)) == sizes


def test_three_pairs_of_kitti_are_too_few_for_three_parts(tmp_path: Path) -> None:
    benchmark(tmp_path, "kitti2015", 3)
    with pytest.raises(RequestError, match=r"3 of 200 disparities .*; at least 4 are needed"):
        find_kitti(tmp_path, "kitti2015", published=200, accept="unofficial")


# The motorcycle


def test_the_motorcycle_is_real_and_its_disparities_fit_its_images() -> None:
    pair = data.motorcycle()
    assert pair.left.shape == pair.right.shape == (250, 370, 3)
    known = pair.disparity > 0
    assert 3 < pair.disparity[known].min() < pair.disparity.max() < 30
    assert 0.9 < known.mean() < 0.95

    def mismatch(shift: float) -> Any:
        rows, columns = np.nonzero(known)
        partners = np.rint(columns - pair.disparity[known] - shift).astype(int)
        inside = (partners >= 0) & (partners < 370)
        there = pair.right[rows[inside], partners[inside]].astype(float)
        return np.median(np.abs(there - pair.left[rows[inside], columns[inside]]))

    assert mismatch(0) < min(mismatch(1), mismatch(-1))


@pytest.mark.parametrize("name", ["motorcycle_left.png", "motorcycle_disp.npz"])
def test_a_motorcycle_that_is_damaged_or_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    copies = [Path(shutil.copy(path, tmp_path)) for path in data.motorcycle_files()]
    monkeypatch.setattr(data, "motorcycle_files", lambda: copies)
    file = tmp_path / name
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(RequestError, match=rf"^psmnet: {file} is (damaged|truncated)"):
        data.motorcycle()
    file.unlink()
    with pytest.raises(RequestError, match=rf"^psmnet: cannot read {file}: No such file"):
        data.describe("embedded", STEREO, tmp_path)
