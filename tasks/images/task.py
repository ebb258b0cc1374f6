"""Classify the images of CIFAR-10, CIFAR-100 and Tiny-ImageNet.

The paper profile is the recipe of the EarlyCroP repository, from which it deviates in this: a
tenth of the training images is kept for validation; CIFAR-100 is turned with bilinear and not
nearest pixels; Tiny-ImageNet is moved by 4 pixels at its own 64, as in GraSP (arXiv:2002.07376),
and not cut out at random and enlarged to 224.
"""

from __future__ import annotations

from harness.registry import task
from tasks.images.classification import ImageClassification
from tasks.images.data import CIFAR10, CIFAR100, TINY_IMAGENET


@task(
    "cifar10",
    title="CIFAR-10, ResNet18",
    metric="top1_accuracy",
    goal="max",
    data="tasks.images.data:describe_cifar10",
    settings={
        "epochs": 10,
        "batch_size": 64,
        "optimiser": "adam",
        "learning_rate": 2e-3,
        "weight_decay": 5e-5,
        "clip": 10.0,
        "model": "resnet18",
        "width": 16,
        "images": "drawn",
        "train_images": 4000,
        "test_images": 1000,
        "resolution": 32,
        "shift": 4,
        "augmentation": "on",
        "rotation": 0.0,
    },
    profiles={
        "smoke": {"epochs": 2, "width": 4, "train_images": 150, "test_images": 50},
        "embedded": {},
        "paper": {
            "epochs": 80,
            "batch_size": 256,
            "model": "resnet18_official",
            "width": 64,
            "images": "official",
            "train_images": 0,
            "test_images": 0,
            "resolution": 64,
        },
    },
    choices={
        "model": (
            "resnet18",
            "resnet18_official",
            "vgg16",
            "vgg16_official",
            "resnext101_32x16d",
            "resnext101_32x48d",
        ),
        "images": ("drawn", "official"),
        "augmentation": ("on", "off"),
    },
    downloads={
        "cifar-10-python.tar.gz": (
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            "c58f30108f718f92721af3b95e74349a",
            "unpack",
        ),
    },
)
class Cifar10(ImageClassification):
    """Ten classes of 32x32 pixels, 45,000 training images; in drawings, ten shapes."""

    data_set = CIFAR10


@task(
    "cifar100",
    title="CIFAR-100, ResNet18",
    metric="top1_accuracy",
    goal="max",
    data="tasks.images.data:describe_cifar100",
    settings={
        "epochs": 10,
        "batch_size": 32,
        "optimiser": "adam",
        "learning_rate": 2e-3,
        "weight_decay": 5e-5,
        "clip": 10.0,
        "model": "resnet18",
        "width": 16,
        "images": "drawn",
        "train_images": 5000,
        "test_images": 1000,
        "resolution": 32,
        "shift": 4,
        "augmentation": "on",
        "rotation": 0.0,
    },
    profiles={
        "smoke": {"epochs": 2, "width": 4, "train_images": 150, "test_images": 50},
        "embedded": {},
        "paper": {
            "epochs": 80,
            "batch_size": 256,
            "model": "resnet18_official",
            "width": 64,
            "images": "official",
            "train_images": 0,
            "test_images": 0,
            "rotation": 15.0,
        },
    },
    choices={
        "model": (
            "resnet18",
            "resnet18_official",
            "vgg16",
            "vgg16_official",
            "resnext101_32x16d",
            "resnext101_32x48d",
        ),
        "images": ("drawn", "official"),
        "augmentation": ("on", "off"),
    },
    downloads={
        "cifar-100-python.tar.gz": (
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            "eb9058c3a382ffc7106e4002c42a8d85",
            "unpack",
        ),
    },
)
class Cifar100(ImageClassification):
    """100 classes of 32x32 pixels, 45,000 training images; in drawings, shapes in ten colours."""

    data_set = CIFAR100


@task(
    "tiny_imagenet",
    title="Tiny-ImageNet, ResNet18",
    metric="top1_accuracy",
    goal="max",
    data="tasks.images.data:describe_tiny_imagenet",
    settings={
        "epochs": 10,
        "batch_size": 32,
        "optimiser": "adam",
        "learning_rate": 2e-3,
        "weight_decay": 5e-5,
        "clip": 10.0,
        "model": "resnet18",
        "width": 16,
        "images": "drawn",
        "train_images": 6000,
        "test_images": 1000,
        "resolution": 32,
        "shift": 4,
        "augmentation": "on",
        "rotation": 0.0,
    },
    profiles={
        "smoke": {"epochs": 2, "width": 4, "train_images": 150, "test_images": 50},
        "embedded": {},
        "paper": {
            "epochs": 80,
            "batch_size": 128,
            "model": "resnet18_official",
            "width": 64,
            "images": "official",
            "train_images": 0,
            "test_images": 0,
            "resolution": 64,
        },
    },
    choices={
        "model": (
            "resnet18",
            "resnet18_official",
            "vgg16",
            "vgg16_official",
            "resnext101_32x16d",
            "resnext101_32x48d",
        ),
        "images": ("drawn", "official"),
        "augmentation": ("on", "off"),
    },
    downloads={
        "tiny-imagenet-200.zip": (
            "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
            "90528d7ca1a48142e341f4ef8d21d0de",
        ),
    },
)
class TinyImageNet(ImageClassification):
    """200 classes of 64x64 pixels, 90,000 training images; in drawings, some of them are striped.

    The official validation images are tested; the training images give those for validation.
    """

    data_set = TINY_IMAGENET
