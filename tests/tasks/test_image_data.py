"""The official formats, written byte by byte, and what can be wrong with them."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torchvision.datasets
from PIL import Image

from harness.command_line import main
from harness.data.cache import VARIABLE
from harness.errors import RequestError
from harness.registry import Registry
from tasks.images import data, official, settings
from tasks.images.data import TINY_IMAGENET, DataSet, split
from tasks.images.settings import PhotographSettings

OFFICIAL = settings.CIFAR10_PROFILES["paper"]
BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of each test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv(VARIABLE, str(folder))
    return folder


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def rows(first: int, count: int = 2) -> npt.NDArray[np.uint8]:
    """Return images as CIFAR has them: 1,024 bytes of red, of green and of blue, row by row."""
    planes = np.zeros((count, 3, 32, 32), np.uint8)
    planes[:, 0, 0, 1] = first + np.arange(count)  # red, the top row's second pixel
    planes[:, 2, 31, 0] = 255  # blue, the lower left corner
    return planes.reshape(count, 3072)


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with two images in each file of CIFAR-10, which for once is official."""
    name = "cifar-10-batches-py"
    folder = tmp_path / "cifar10" / name
    folder.mkdir(parents=True)
    for number, file in enumerate((*BATCHES, "test_batch")):
        batch = {
            "batch_label": "a batch",
            "labels": [number, 9],
            "data": rows(10 * number),
            "filenames": ["a.png", "b.png"],
        }
        (folder / file).write_bytes(pickle.dumps(batch, protocol=2))
    meta = {"label_names": ["airplane"] * 10, "num_cases_per_batch": 2, "num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    declare(monkeypatch, "CIFAR10", folder)
    return tmp_path


@pytest.fixture
def cifar100(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same for CIFAR-100, with its two kinds of labels."""
    folder = tmp_path / "cifar100" / "cifar-100-python"
    folder.mkdir(parents=True)
    for first, file in ((0, "train"), (50, "test")):
        batch = {"fine_labels": [99, 3], "coarse_labels": [19, 1], "data": rows(first)}
        (folder / file).write_bytes(pickle.dumps(batch, protocol=2))
    meta = {"fine_label_names": ["apple"] * 100, "coarse_label_names": ["fruit"] * 20}
    (folder / "meta").write_bytes(pickle.dumps(meta, protocol=2))
    declare(monkeypatch, "CIFAR100", folder)
    return tmp_path


def declare(monkeypatch: pytest.MonkeyPatch, data_set: str, folder: Path) -> None:
    """Let the files of a folder count as the official ones."""
    checksums = {f"{folder.name}/{path.name}": md5(path) for path in sorted(folder.iterdir())}
    known: DataSet = getattr(data, data_set)
    files = replace(getattr(official, f"{data_set}_BATCHES"), checksums=checksums)
    declared = replace(known, identify=files.identify, decode=files.decode)
    monkeypatch.setattr(data, data_set, declared)


def jpeg(colour: object, mode: str = "RGB", size: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (size, size), colour).save(buffer, "JPEG", quality=100)  # type: ignore[arg-type]
    return buffer.getvalue()


def tiny_members() -> dict[str, bytes]:
    """Return what is in the archive of Tiny-ImageNet, of two classes and five images."""
    root = "tiny-imagenet-200"
    return {
        f"{root}/wnids.txt": b"n02124075\nn01443537\n",
        f"{root}/words.txt": b"n01443537\tgoldfish, Carassius auratus\n",
        f"{root}/train/n01443537/images/n01443537_0.JPEG": jpeg((250, 0, 0)),
        f"{root}/train/n01443537/n01443537_boxes.txt": b"n01443537_0.JPEG\t0\t10\t63\t58\n",
        f"{root}/train/n02124075/images/n02124075_0.JPEG": jpeg((0, 250, 0)),
        f"{root}/train/n02124075/images/n02124075_1.JPEG": jpeg(100, mode="L"),
        f"{root}/train/n02124075/images/._n02124075_1.JPEG": b"what macOS keeps beside it",
        f"{root}/val/images/val_0.JPEG": jpeg((0, 0, 250)),
        f"{root}/val/images/val_1.JPEG": jpeg((250, 0, 0)),
        f"{root}/val/val_annotations.txt": (
            b"val_0.JPEG\tn02124075\t0\t32\t44\t62\nval_1.JPEG\tn01443537\t52\t55\t57\t59\n"
        ),
        f"{root}/test/images/test_0.JPEG": b"never looked at",
    }


def write_tiny(folder: Path, members: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write an archive that for once is official; return the data folder."""
    path = folder / "tiny_imagenet" / "tiny-imagenet-200.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    monkeypatch.setattr(official, "TINY_IMAGENET_MD5", md5(path))
    return folder


# What is read


def test_cifar10_is_read_as_its_format_says(cifar10: Path) -> None:
    arrays = data.CIFAR10.arrays(OFFICIAL, cifar10)
    assert arrays["train_images"].shape == (10, 3, 32, 32)
    assert arrays["train_images"].dtype == np.uint8
    assert arrays["train_images"][:, 0, 0, 1].tolist() == [0, 1, 10, 11, 20, 21, 30, 31, 40, 41]
    assert (arrays["train_images"][:, 2, 31, 0] == 255).all()
    assert arrays["train_images"].astype(int).sum() == 10 * 255 + 205
    assert arrays["train_labels"].tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]
    assert arrays["test_images"][:, 0, 0, 1].tolist() == [50, 51]
    assert arrays["test_labels"].tolist() == [5, 9]


def test_cifar100_is_read_with_its_fine_labels(cifar100: Path) -> None:
    arrays = data.CIFAR100.arrays(OFFICIAL, cifar100)
    assert arrays["train_labels"].tolist() == [99, 3]
    assert arrays["test_images"][:, 0, 0, 1].tolist() == [50, 51]


def test_tiny_imagenet_is_read_from_its_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tiny(tmp_path, tiny_members(), monkeypatch)
    arrays = TINY_IMAGENET.arrays(OFFICIAL, folder)
    assert arrays["train_images"].shape == (3, 3, 64, 64)
    assert arrays["train_labels"].tolist() == [0, 1, 1], "classes are in the order of their names"
    assert arrays["test_labels"].tolist() == [1, 0], "from the table, not from the folder"
    middle = arrays["train_images"][:, :, 32, 32].astype(int)
    expected = [[250, 0, 0], [0, 250, 0], [100, 100, 100]]
    assert np.abs(middle - expected).max() <= 3, "JPEG is not exact; grey has three channels"
    assert np.abs(arrays["test_images"][:, 2, 0, 0].astype(int) - [250, 0]).max() <= 3


def test_what_is_official_is_said_to_be(cifar10: Path) -> None:
    description = data.CIFAR10.describe("paper", OFFICIAL, cifar10)
    assert (description.source, description.name) == ("official", "CIFAR-10")


def test_the_checksums_are_those_of_torchvision_and_of_the_downloads() -> None:
    for kind, task in (
        (torchvision.datasets.CIFAR10, "cifar10"),
        (torchvision.datasets.CIFAR100, "cifar100"),
    ):
        theirs = dict(
            [*kind.train_list, *kind.test_list, [kind.meta["filename"], kind.meta["md5"]]]
        )
        arguments = Registry().find("task", task).arguments
        unpacked = {f"{kind.base_folder}/{name}": checksum for name, checksum in theirs.items()}
        assert arguments["unpacked"] == unpacked
        downloads = arguments["downloads"]
        assert downloads == {kind.filename: (kind.url, kind.tgz_md5, "unpack")}


def test_a_data_folder_is_only_read(
    cifar10: Path, small_disk: Path, remount: Callable[[Path, str], None], cache: Path
) -> None:
    shutil.copytree(cifar10 / "cifar10", small_disk / "cifar10")
    remount(small_disk, "ro")
    arrays = data.CIFAR10.arrays(OFFICIAL, small_disk)
    assert arrays["test_labels"].tolist() == [5, 9]
    (decoded,) = [path for path in (cache / "cifar10").iterdir() if path.is_dir()]
    assert decoded.name.startswith("decoded-")


# What is refused


def refusal(data_set: DataSet, data_folder: Path, settings: PhotographSettings = OFFICIAL) -> str:
    """Return the complaint, in one line, of describing and reading alike."""
    with pytest.raises(RequestError) as described:
        data_set.describe("paper", settings, data_folder)
    with pytest.raises(RequestError) as read:
        data_set.arrays(settings, data_folder)
    assert str(described.value) == str(read.value)
    assert "\n" not in str(read.value)
    return str(read.value)


@pytest.mark.parametrize("file", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_truncated_file_of_cifar_is_refused(cifar10: Path, file: str) -> None:
    path = cifar10 / "cifar10" / "cifar-10-batches-py" / file
    path.write_bytes(path.read_bytes()[:-1])
    said = refusal(data.CIFAR10, cifar10)
    assert f"{path} is truncated or changed: its MD5 is {md5(path)} and not" in said
    assert "data fetch cifar10`, or copy" in said


def test_a_missing_file_of_cifar_is_named(cifar10: Path) -> None:
    path = cifar10 / "cifar10" / "cifar-10-batches-py" / "data_batch_5"
    path.unlink()
    assert f"cannot read {path}: No such file" in refusal(data.CIFAR10, cifar10)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"labels": [1, 2]}, "is damaged: 'data'"),
        ({"labels": [1], "data": rows(0)}, "has 10 images and 9 labels for train"),
        ({"labels": [1], "data": rows(0)[:, :5]}, "is damaged: "),
        (b"no pickle", "is damaged: "),
    ],
    ids=["no images", "a label is missing", "another size", "text"],
)
def test_files_of_another_content_are_refused_in_one_line(
    cifar10: Path, monkeypatch: pytest.MonkeyPatch, content: object, complaint: str
) -> None:
    folder = cifar10 / "cifar10" / "cifar-10-batches-py"
    raw = content if isinstance(content, bytes) else pickle.dumps(content)
    (folder / "data_batch_5").write_bytes(raw)
    declare(monkeypatch, "CIFAR10", folder)
    with pytest.raises(RequestError, match=f"^cifar10: {folder} {complaint}") as refused:
        data.CIFAR10.arrays(OFFICIAL, cifar10)
    assert "\n" not in str(refused.value)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("file", ["data_batch_1", "test_batch", "batches.meta"])
def test_a_pickle_that_would_run_code_is_not_unpickled(cifar10: Path, file: str) -> None:
    evidence = cifar10 / "evidence"
    path = cifar10 / "cifar10" / "cifar-10-batches-py" / file
    path.write_bytes(pickle.dumps(Trap(evidence)))
    assert "is truncated or changed" in refusal(data.CIFAR10, cifar10)
    assert not evidence.exists()
    pickle.loads(path.read_bytes())
    assert evidence.exists(), "the trap works"


def test_the_archive_of_tiny_imagenet_is_missing_or_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "cannot read" in refusal(TINY_IMAGENET, tmp_path)
    folder = write_tiny(tmp_path, tiny_members(), monkeypatch)
    path = folder / "tiny_imagenet" / "tiny-imagenet-200.zip"
    path.write_bytes(path.read_bytes()[:-1])
    said = refusal(TINY_IMAGENET, folder)
    assert "is truncated or changed" in said
    assert "data fetch tiny_imagenet`, or copy" in said


@pytest.mark.parametrize(
    ("member", "content", "complaint"),
    [
        ("wnids.txt", None, "no item named 'tiny-imagenet-200/wnids.txt'"),
        ("val/images/val_1.JPEG", None, "no item named .*val_1.JPEG"),
        ("val/images/val_1.JPEG", b"no JPEG", "val_1.JPEG is not an image"),
        ("val/images/val_1.JPEG", jpeg(0)[:-300], "val_1.JPEG is not an image"),
        ("val/images/val_1.JPEG", jpeg(0, size=32), "val_1.JPEG is not an image of 64 by 64"),
        ("val/val_annotations.txt", b"val_0.JPEG\tn00000000\t0\t0\t1\t1\n", "class n00000000"),
        ("wnids.txt", b"caf\xe9\n", "wnids.txt is not UTF-8 at byte 3"),
        ("val/val_annotations.txt", b"", "has no images for test"),
        ("val/val_annotations.txt", b"val_0.JPEG n02124075\n", "row 1 of val/val_annotations.txt"),
    ],
)
def test_an_archive_whose_content_is_not_tiny_imagenet_is_refused(
    member: str,
    content: bytes | None,
    complaint: str,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    members = tiny_members()
    del members[f"tiny-imagenet-200/{member}"]
    if content is not None:
        members[f"tiny-imagenet-200/{member}"] = content
    folder = write_tiny(tmp_path, members, monkeypatch)
    with pytest.raises(RequestError, match=f"^tiny_imagenet: .*{complaint}") as refused:
        TINY_IMAGENET.arrays(OFFICIAL, folder)
    assert "\n" not in str(refused.value)
    assert not [path for path in cache.glob("tiny_imagenet/*decoded*") if path.is_dir()]


def test_data_check_says_what_is_missing_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", "cifar100", "--data", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert "synthetic" in said.out
    assert "missing" in said.out
    (line,) = said.err.splitlines()
    assert f"cannot read {tmp_path / 'cifar100' / 'cifar-100-python' / 'train'}" in line


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"images": "drawn", "train_images": 0, "test_images": 5}, "train_images=0 is too few"),
        ({"images": "drawn", "train_images": 9, "test_images": 5}, "train_images=9 is too few"),
        ({"images": "drawn", "train_images": 90, "test_images": 0}, "test_images=0 is too few"),
        ({"images": "official", "train_images": 9, "test_images": 0}, "train_images=9 is too"),
    ],
)
def test_too_few_images_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RequestError, match=complaint):
        data.CIFAR10.describe("paper", replace(OFFICIAL, **changes), Path())


# Unofficial files

UNOFFICIAL = replace(OFFICIAL, accept="unofficial")


def count_as_complete(monkeypatch: pytest.MonkeyPatch, train: int, test: int) -> None:
    monkeypatch.setattr(official, "PUBLISHED_IMAGES", {"train": train, "test": test})
    monkeypatch.setattr(official, "TINY_IMAGES", {"train": train, "test": test})


def test_batches_that_were_pickled_again_are_unofficial(
    cifar10: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_published = data.CIFAR10.describe("paper", UNOFFICIAL, cifar10)
    assert as_published == data.CIFAR10.describe("paper", OFFICIAL, cifar10)
    path = cifar10 / "cifar10" / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(pickle.dumps(pickle.loads(path.read_bytes()), protocol=5))
    assert "accept=unofficial uses it if" in refusal(data.CIFAR10, cifar10)
    count_as_complete(monkeypatch, 10, 2)
    described = data.CIFAR10.describe("paper", UNOFFICIAL, cifar10)
    assert (described.source, described.name) == ("unofficial", "CIFAR-10, other files")
    assert described.sha256 != as_published.sha256
    arrays = data.CIFAR10.arrays(UNOFFICIAL, cifar10)
    assert arrays["train_images"][:, 0, 0, 1].tolist() == [0, 1, 10, 11, 20, 21, 30, 31, 40, 41]


def test_unofficial_data_have_to_be_complete(
    cifar10: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = cifar10 / "cifar10" / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(pickle.dumps(pickle.loads(path.read_bytes()), protocol=5))
    complaint = "has 10 images for train, not 50,000: the data are not complete"
    assert complaint in refusal(data.CIFAR10, cifar10, UNOFFICIAL)
    write_tiny(tmp_path, tiny_members(), monkeypatch)
    monkeypatch.setattr(official, "TINY_IMAGENET_MD5", "0" * 32)
    complaint = "has 3 images for train, not 100,000: the data are not complete"
    assert complaint in refusal(TINY_IMAGENET, tmp_path, UNOFFICIAL)


@pytest.mark.parametrize("file", ["data_batch_1", "test_batch"])
def test_an_unofficial_pickle_that_would_run_code_is_not_unpickled(
    cifar10: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    count_as_complete(monkeypatch, 10, 2)
    evidence = cifar10 / "evidence"
    path = cifar10 / "cifar10" / "cifar-10-batches-py" / file
    path.write_bytes(pickle.dumps(Trap(evidence)))
    assert "it calls posix.mkdir, which builds no array" in refusal(
        data.CIFAR10, cifar10, UNOFFICIAL
    )
    assert not evidence.exists()


def test_an_archive_of_tiny_imagenet_that_was_packed_again_is_unofficial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tiny(tmp_path, tiny_members(), monkeypatch)
    monkeypatch.setattr(official, "TINY_IMAGENET_MD5", "0" * 32)
    count_as_complete(monkeypatch, 3, 2)
    described = TINY_IMAGENET.describe("paper", UNOFFICIAL, folder)
    assert described.source == "unofficial"
    assert TINY_IMAGENET.arrays(UNOFFICIAL, folder)["test_labels"].tolist() == [1, 0]


# The parts


def test_a_tenth_of_the_training_images_is_for_validation_and_never_changes() -> None:
    parts = split(50, 7)
    assert sorted([*parts["train"], *parts["validation"]]) == list(range(50))
    assert parts["validation"].tolist() == [18, 23, 36, 4, 2]
    assert parts["test"].tolist() == list(range(7))


def test_limits_take_images_of_all_kinds_from_both_parts() -> None:
    parts = split(1000, 7, train_images=40, test_images=3)
    assert (len(parts["train"]), len(parts["validation"]), len(parts["test"])) == (36, 4, 3)
    assert max(parts["train"]) > 900, "not the first ones, which may be of one class"
