"""The settings of image classification, and the official files. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from harness.foreign_models import IMAGE_MODEL, Head, PretrainedSettings
from harness.settings import ON_OFF, Interval, PublishedDataSettings


@dataclass(frozen=True, kw_only=True)
class ImageSettings(PretrainedSettings):
    """What every task of image classification has."""

    width: Annotated[
        int, "channels of the network's first stage, or of each head of vit; 64 as published"
    ]
    shift: Annotated[int, "pixels by which training images are moved at most, in both directions"]
    head: Annotated[
        Head,
        "output layer in a network with pretrained weights: loaded too, or new, for new classes",
    ] = "loaded"
    blocks: Annotated[int, "blocks of model=vit; 7 as published"] = 4


@dataclass(frozen=True, kw_only=True)
class ColourSettings(ImageSettings):
    """What tasks on colour images have in common."""

    model: Annotated[
        Literal[
            "resnet18",
            "resnet18_official",
            "vgg16",
            "vgg16_official",
            "resnext101_32x16d",
            "resnext101_32x48d",
            "vit",
        ],
        "network; official ones are those of the EarlyCroP code",
        IMAGE_MODEL,
    ] = "resnet18"
    resolution: Annotated[int, "pixels of a side, to which images are resized"] = 32
    augmentation: Annotated[bool, "vary training images: move, mirror and rotate them", ON_OFF] = (
        True
    )
    rotation: Annotated[float, "degrees by which training images are rotated at most"] = 0.0


@dataclass(frozen=True, kw_only=True)
class PhotographSettings(ColourSettings, PublishedDataSettings):
    """What CIFAR-10, CIFAR-100 and Tiny-ImageNet have in common."""

    images: Annotated[
        Literal["drawn", "official"], "the published images, or drawings made here in their format"
    ] = "drawn"
    train_images: Annotated[
        int,
        "images for training and validation together; 0 for all official ones",
        Interval("[0, inf)"),
    ]
    test_images: Annotated[
        int, "images for the test; 0 for all official ones", Interval("[0, inf)")
    ] = 1000


@dataclass(frozen=True, kw_only=True)
class FolderSettings(ColourSettings):
    """What can be set for a folder of images."""

    folder: Annotated[
        str,
        "drawn (shapes that are drawn here), or a folder with a subfolder of images for each "
        "class; there may be folders train, val and test above the classes",
    ] = "drawn"
    split_seed: Annotated[
        int, "seed by which files are divided among parts that have no folder"
    ] = 0
    normalisation: Annotated[
        Literal["own", "imagenet", "none"],
        "mean and standard deviation of each colour: those of the training images, those of "
        "ImageNet, which published weights expect, or none: values from 0 to 1",
    ] = "own"
    drawn_images: Annotated[int, "images of folder=drawn, in all"] = 700


CIFAR10 = PhotographSettings(
    epochs=10,
    batch_size=64,
    optimiser="adam",
    learning_rate=2e-3,
    weight_decay=5e-5,
    clip=10.0,
    width=16,
    shift=4,
    train_images=4000,
)
CIFAR100 = replace(CIFAR10, batch_size=32, train_images=5000)
TINY_IMAGENET = replace(CIFAR10, batch_size=32, train_images=6000)


def _profiles(
    embedded: PhotographSettings, *, batch_size: int, resolution: int, rotation: float = 0.0
) -> dict[str, PhotographSettings]:
    """Return the profiles of a data set; the arguments are those of the paper profile.

    That profile is the recipe of the EarlyCroP repository.
    """
    return {
        "smoke": replace(embedded, epochs=2, width=4, blocks=2, train_images=150, test_images=50),
        "embedded": embedded,
        "paper": replace(
            embedded,
            epochs=80,
            batch_size=batch_size,
            model="resnet18_official",
            width=64,
            blocks=7,
            images="official",
            train_images=0,
            test_images=0,
            resolution=resolution,
            rotation=rotation,
        ),
    }


CIFAR10_PROFILES = _profiles(CIFAR10, batch_size=256, resolution=64)
CIFAR100_PROFILES = _profiles(CIFAR100, batch_size=256, resolution=32, rotation=15.0)
TINY_IMAGENET_PROFILES = _profiles(TINY_IMAGENET, batch_size=128, resolution=64)

FOLDER = FolderSettings(
    epochs=10,
    batch_size=32,
    optimiser="adam",
    learning_rate=2e-3,
    weight_decay=5e-5,
    clip=10.0,
    width=16,
    shift=4,
)
FOLDER_PROFILES = {
    "smoke": replace(FOLDER, epochs=2, width=4, blocks=2, drawn_images=120),
    "embedded": FOLDER,
}

CIFAR10_FILES = {
    "cifar-10-python.tar.gz": (
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "c58f30108f718f92721af3b95e74349a",
        "unpack",
    ),
}
CIFAR100_FILES = {
    "cifar-100-python.tar.gz": (
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "eb9058c3a382ffc7106e4002c42a8d85",
        "unpack",
    ),
}

CIFAR10_FOLDER = "cifar-10-batches-py"
CIFAR10_UNPACKED = {
    f"{CIFAR10_FOLDER}/data_batch_1": "c99cafc152244af753f735de768cd75f",
    f"{CIFAR10_FOLDER}/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    f"{CIFAR10_FOLDER}/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    f"{CIFAR10_FOLDER}/data_batch_4": "634d18415352ddfa80567beed471001a",
    f"{CIFAR10_FOLDER}/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    f"{CIFAR10_FOLDER}/test_batch": "40351d587109b95175f43aff81a1287e",
    f"{CIFAR10_FOLDER}/batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
CIFAR100_FOLDER = "cifar-100-python"
CIFAR100_UNPACKED = {
    f"{CIFAR100_FOLDER}/train": "16019d7e3df5f24257cddd939b257f8d",
    f"{CIFAR100_FOLDER}/test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    f"{CIFAR100_FOLDER}/meta": "7973b15100ade9c7d40fb424638fde48",
}

TINY_IMAGENET_ARCHIVE = "tiny-imagenet-200.zip"
TINY_IMAGENET_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
TINY_IMAGENET_FILES = {
    TINY_IMAGENET_ARCHIVE: (
        f"http://cs231n.stanford.edu/{TINY_IMAGENET_ARCHIVE}",
        TINY_IMAGENET_MD5,
    ),
}
