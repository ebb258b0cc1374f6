"""MNIST and Fashion-MNIST: files in the real format, the enlarged digits, the LeNets."""

from __future__ import annotations

import gzip
import hashlib
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torchvision.datasets
from torch import nn

from harness.command_line import main
from harness.data.cache import VARIABLE
from harness.errors import RequestError
from harness.network import build_task
from harness.prunable import prunable_weights
from harness.registry import Registry
from harness.spec import plan
from pruners.channels.tracing import trace_channels
from tasks.images import digits
from tasks.mnist.data import FASHION_MNIST, MNIST, DataSet
from tasks.mnist.networks import NETWORKS, lenet_5_caffe, lenet_300_100
from tasks.mnist.settings import FASHION_MNIST_FILES, MNIST_FILES, PROFILES
from tasks.mnist.task import MnistImages

CPU = torch.device("cpu")
OFFICIAL = PROFILES["paper"]
UNOFFICIAL = replace(OFFICIAL, accept="unofficial")

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = MNIST_FILES


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache folder of each test."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))


def idx(values: Sequence[int] | npt.NDArray[np.uint8], kind: int = 8) -> bytes:
    """Return an IDX file: two zeros, the type, the number of dimensions, their sizes, values."""
    array = np.asarray(values, np.uint8)
    header = bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def images(first: int, count: int) -> npt.NDArray[np.uint8]:
    """Return images (count, 28, 28) whose second pixel of the top row is not black."""
    made = np.zeros((count, 28, 28), np.uint8)
    made[:, 0, 1] = first + np.arange(count)
    return made


CONTENT = {
    TRAIN_IMAGES: idx(images(10, 3)),
    TRAIN_LABELS: idx([7, 0, 9]),
    TEST_IMAGES: idx(images(50, 2)),
    TEST_LABELS: idx([1, 2]),
}


def publish(data_folder: Path, changes: dict[str, bytes] | None = None) -> DataSet:
    """Write the files of a data set of five images, which for once is published."""
    folder = data_folder / "mnist"
    folder.mkdir()
    files = {}
    for name, content in (CONTENT | (changes or {})).items():
        packed = gzip.compress(content, mtime=0)
        (folder / name).write_bytes(packed)
        files[name] = ("", hashlib.md5(packed).hexdigest())
    return replace(MNIST, files=files, train=3, test=2)


# What is read


def test_the_files_are_read_as_their_format_says(tmp_path: Path) -> None:
    arrays, numbers = publish(tmp_path).arrays(OFFICIAL, tmp_path)
    assert arrays["train_images"].shape == (3, 1, 28, 28)
    assert arrays["train_images"].dtype == np.uint8
    assert arrays["train_images"][:, 0, 0, 1].tolist() == [10, 11, 12]
    assert arrays["train_images"].astype(int).sum() == 33
    assert arrays["train_labels"].tolist() == [7, 0, 9]
    assert arrays["test_images"][:, 0, 0, 1].tolist() == [50, 51]
    assert arrays["test_labels"].tolist() == [1, 2]
    assert sorted([*numbers["train"], *numbers["validation"]]) == [0, 1, 2]


def test_what_is_published_is_said_to_be(tmp_path: Path) -> None:
    described = publish(tmp_path).describe("paper", OFFICIAL, tmp_path)
    assert (described.source, described.name) == ("official", "MNIST")


def test_the_checksums_are_those_of_torchvision() -> None:
    for kind, files in (
        (torchvision.datasets.MNIST, MNIST_FILES),
        (torchvision.datasets.FashionMNIST, FASHION_MNIST_FILES),
    ):
        assert dict(kind.resources) == {name: md5 for name, (_, md5) in files.items()}
        assert all(url == f"{kind.mirrors[0]}{name}" for name, (url, _) in files.items())


# What is refused


def refusal(data_set: DataSet, data_folder: Path, settings: Any = OFFICIAL) -> str:
    with pytest.raises(RequestError) as refused:
        data_set.arrays(settings, data_folder)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_missing_or_truncated_file_is_named(tmp_path: Path) -> None:
    data_set = publish(tmp_path)
    path = tmp_path / "mnist" / TEST_LABELS
    path.write_bytes(path.read_bytes()[:-1])
    said = refusal(data_set, tmp_path)
    assert f"{path} is truncated or changed: its MD5 is" in said
    assert "accept=unofficial uses it if the data are complete" in said
    path.unlink()
    assert f"cannot read {path}: No such file" in refusal(data_set, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        (TRAIN_LABELS, idx([1, 2]), "3, 1, 28, 28) and 2 labels for train, which do not match"),
        (TRAIN_LABELS, idx([1, 2, 10]), "labels above 9 for train"),
        (TEST_IMAGES, idx(images(0, 2)[:, :27]), "which do not match"),
        (TEST_IMAGES, idx(images(0, 2))[:-1], f"{TEST_IMAGES} is damaged"),
        (TEST_IMAGES, b"", f"{TEST_IMAGES} is damaged"),
        (TEST_LABELS, idx([1, 2], kind=7), f"{TEST_LABELS} is damaged"),
        (TEST_LABELS, idx([1, 2], kind=9), "its values are int8, not bytes"),
    ],
    ids=["a label is missing", "eleven classes", "27 rows", "short", "empty", "no type", "signed"],
)
def test_files_of_another_content_are_refused(
    tmp_path: Path, name: str, content: bytes, complaint: str
) -> None:
    assert complaint in refusal(publish(tmp_path, {name: content}), tmp_path)


# Unofficial files


def test_the_published_files_are_official_whatever_is_accepted(tmp_path: Path) -> None:
    data_set = publish(tmp_path)
    official = data_set.describe("paper", OFFICIAL, tmp_path)
    assert data_set.describe("paper", UNOFFICIAL, tmp_path) == official


@pytest.mark.parametrize("is_packed", [True, False])
def test_files_that_were_packed_again_or_unpacked_are_unofficial(
    tmp_path: Path, is_packed: bool
) -> None:
    data_set = publish(tmp_path)
    official = data_set.describe("paper", OFFICIAL, tmp_path)
    path = tmp_path / "mnist" / TRAIN_IMAGES
    path.unlink()
    if is_packed:
        path.write_bytes(gzip.compress(CONTENT[TRAIN_IMAGES], compresslevel=1, mtime=1))
    else:
        path.with_suffix("").write_bytes(CONTENT[TRAIN_IMAGES])
    refusal(data_set, tmp_path)
    described = data_set.describe("paper", UNOFFICIAL, tmp_path)
    assert (described.source, described.name) == ("unofficial", "MNIST, other files")
    assert described.sha256 != official.sha256
    arrays, _ = data_set.arrays(UNOFFICIAL, tmp_path)
    assert arrays["train_images"][:, 0, 0, 1].tolist() == [10, 11, 12]


def test_unofficial_files_have_to_be_complete(tmp_path: Path) -> None:
    data_set = replace(publish(tmp_path), train=4)
    path = tmp_path / "mnist" / TEST_LABELS
    path.write_bytes(gzip.compress(CONTENT[TEST_LABELS], mtime=1))
    said = refusal(data_set, tmp_path, UNOFFICIAL)
    assert "has the shape (3, 28, 28), not (4, 28, 28): the data are not complete" in said
    path.unlink()
    assert f"cannot read {path}: No such file" in refusal(data_set, tmp_path, UNOFFICIAL)


def test_data_check_lists_the_files_and_their_forms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(tmp_path)
    (tmp_path / "mnist" / TEST_LABELS).rename(tmp_path / "mnist" / "labels.gz")
    (tmp_path / "mnist" / TEST_IMAGES.removesuffix(".gz")).write_bytes(b"")
    (tmp_path / "mnist" / TEST_IMAGES).unlink()
    assert main(["data", "check", "mnist", "--data", str(tmp_path)]) == 2
    shown = " ".join(capsys.readouterr().out.split())
    assert f"{TRAIN_IMAGES} differs from the published file" in shown
    assert f"t10k-images-idx3-ubyte {TEST_IMAGES}, unpacked" in shown
    assert f"{TEST_LABELS} missing" in shown
    assert "labels.gz not read (" in shown


# The digits in their place


def test_the_digits_are_enlarged_and_keep_their_parts() -> None:
    arrays, numbers = MNIST.arrays(PROFILES["embedded"], Path())
    small, labels = digits.read()
    enlarged = arrays["test_images"]
    assert enlarged.shape == (1797, 1, 28, 28)
    assert enlarged.dtype == np.uint8
    assert np.array_equal(arrays["train_labels"], labels)
    assert [len(numbers[part]) for part in ("train", "validation", "test")] == [898, 180, 719]
    # Bilinear interpolation keeps the brightness but for what the corners are cut by.
    means = enlarged.mean((1, 2, 3)) / 255
    np.testing.assert_allclose(means, small.mean((1, 2, 3)) / 16, atol=0.01)
    assert enlarged.max() == 255


@pytest.mark.parametrize("data_set", [MNIST, FASHION_MNIST], ids=lambda each: each.folder)
def test_the_digits_are_said_to_stand_in(data_set: DataSet) -> None:
    described = data_set.describe("embedded", PROFILES["embedded"], Path())
    assert described.source == "real"
    assert described.stands_in_for == data_set.title
    assert described.name == f"scikit-learn digits, enlarged to 28x28; not {data_set.title}"


# The networks


@pytest.mark.parametrize(
    ("model", "parameters", "weights"),
    [
        (lenet_300_100(300), 784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10, 266_200),
        (lenet_5_caffe(20), 520 + 25_050 + 400_500 + 5_010, 430_500),
    ],
)
def test_the_lenets_have_their_published_sizes(
    model: nn.Module, parameters: int, weights: int
) -> None:
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert sum(weight.numel() for weight in prunable_weights(model).values()) == weights


def test_weights_have_a_variance_of_one_over_the_fan_in() -> None:
    torch.manual_seed(0)
    model = lenet_300_100(300)
    first = model[1]
    assert isinstance(first, nn.Linear)
    weight = first.weight.detach()
    assert float(weight.std()) == pytest.approx(784**-0.5, rel=0.01)
    assert float(weight.abs().max()) <= 2 * 784**-0.5 / 0.8796
    assert not first.bias.any()


@pytest.mark.parametrize(
    ("name", "groups"), [("lenet_300_100", 2), ("lenet_5_caffe", 3), ("resnet18", 12)]
)
def test_the_channels_that_can_be_removed(name: str, groups: int) -> None:
    """Of a LeNet: everything between its layers; of a ResNet18: as of the larger ones."""
    build, _ = NETWORKS[name]
    assert len(trace_channels(build(6), torch.ones(1, 1, 28, 28)).groups) == groups


def test_the_choices_of_the_tasks_are_the_networks_there_are() -> None:
    for name in ("mnist", "fashion_mnist"):
        choices = Registry().find("task", name).arguments["choices"]
        assert set(choices["model"]) == {*NETWORKS, "vit"}


# The tasks


def build(name: str = "mnist", **overrides: str) -> MnistImages:
    wanted = plan(Registry(), name, "dense", profile="smoke", overrides=overrides)
    task = build_task(wanted, CPU)
    assert isinstance(task, MnistImages)
    return task


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("model", NETWORKS)
def test_every_network_learns_from_a_batch(name: str, model: str) -> None:
    task = build(name, model=model, width="6")
    torch.manual_seed(0)
    network = task.model()
    task.loss(network, task.scoring_batches(0)[0]).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in network.parameters())


def test_accuracy_and_error_are_all(monkeypatch: pytest.MonkeyPatch) -> None:
    task = build()
    logits, labels = torch.eye(10)[[3, 4, 5, 6]], torch.tensor([3, 4, 5, 7])
    assert task.metrics(logits, labels) == {"accuracy": 75, "error": 25}


def test_a_batch_of_one_image_is_refused_where_it_is_normalised() -> None:
    assert build(batch_size="299").steps_per_epoch == 4, "one image is left over"
    with pytest.raises(RequestError, match="leaves one of 898 training images alone"):
        build(batch_size="299", model="resnet18")


def test_the_paper_profile_is_the_recipe_of_snip() -> None:
    recipe = {
        "images": "official",
        "model": "lenet_5_caffe",
        "batch_size": 100,
        "optimiser": "sgd",
        "weight_decay": 5e-4,
        "clip": 0.0,
        "shift": 0,
    }
    assert {name: OFFICIAL[name] for name in recipe} == recipe
