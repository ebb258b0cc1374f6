"""The settings of MNIST and Fashion-MNIST, and the official files. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from harness.foreign_models import IMAGE_MODEL
from harness.settings import Interval, PublishedDataSettings
from tasks.images.settings import ImageSettings


@dataclass(frozen=True, kw_only=True)
class MnistSettings(ImageSettings, PublishedDataSettings):
    """What can be set for MNIST and Fashion-MNIST."""

    model: Annotated[
        Literal["lenet_5_caffe", "lenet_300_100", "resnet18", "vit"],
        "network; the first two are those of SNIP's experiments",
        IMAGE_MODEL,
    ] = "lenet_5_caffe"
    width: Annotated[
        int,
        "channels or neurons of the network's first layer, or channels of each head of vit; 0 for "
        "20 in lenet_5_caffe, 300 in lenet_300_100 and 16 in resnet18 and vit",
        Interval("[0, inf)"),
    ] = 0
    images: Annotated[
        Literal["digits", "official"],
        "the published images, or scikit-learn's digits, enlarged to 28x28",
    ] = "digits"


EMBEDDED = MnistSettings(
    epochs=20,
    batch_size=50,
    optimiser="adam",
    learning_rate=1e-3,
    weight_decay=5e-4,
    clip=10.0,
    shift=0,
)

PROFILES = {
    "smoke": replace(EMBEDDED, epochs=2, batch_size=256, blocks=2),
    "embedded": EMBEDDED,
    "paper": replace(
        EMBEDDED,
        epochs=250,
        batch_size=100,
        optimiser="sgd",
        learning_rate=0.01,
        clip=0.0,
        blocks=7,
        images="official",
    ),
}

TRAIN_IMAGES = "train-images-idx3-ubyte.gz"
TRAIN_LABELS = "train-labels-idx1-ubyte.gz"
TEST_IMAGES = "t10k-images-idx3-ubyte.gz"
TEST_LABELS = "t10k-labels-idx1-ubyte.gz"

_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"
MNIST_FILES = {
    TRAIN_IMAGES: (f"{_MNIST}/{TRAIN_IMAGES}", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
    TRAIN_LABELS: (f"{_MNIST}/{TRAIN_LABELS}", "d53e105ee54ea40749a09fcbcd1e9432"),
    TEST_IMAGES: (f"{_MNIST}/{TEST_IMAGES}", "9fb629c4189551a2d022fa330f9573f3"),
    TEST_LABELS: (f"{_MNIST}/{TEST_LABELS}", "ec29112dd5afa0611ce80d1b7f02629c"),
}

_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
FASHION_MNIST_FILES = {
    TRAIN_IMAGES: (f"{_FASHION}/{TRAIN_IMAGES}", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
    TRAIN_LABELS: (f"{_FASHION}/{TRAIN_LABELS}", "25c81989df183df01b3e8a0aad5dffbe"),
    TEST_IMAGES: (f"{_FASHION}/{TEST_IMAGES}", "bef4ecab320f06d8554ea6380940ec79"),
    TEST_LABELS: (f"{_FASHION}/{TEST_LABELS}", "bb300cfdad3c16e7a12a480ee83cd310"),
}
