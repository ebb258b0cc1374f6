"""The settings of depth from one image, and the official files. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from harness.settings import Interval, PublishedDataSettings


@dataclass(frozen=True, kw_only=True)
class DepthSettings(PublishedDataSettings):
    """What can be set for depth from one image."""

    encoder: Annotated[Literal["resnet18", "resnet50"], "residual encoder"] = "resnet18"
    width: Annotated[int, "channels of the encoder's stem; 64 as published"]
    init: Annotated[
        Literal["scratch", "pretrained"],
        "first weights of the encoder: new ones, or those published for ImageNet (width=64)",
    ] = "scratch"
    up: Annotated[
        Literal["fast", "unpool", "deconvolution", "pixel_shuffle"],
        "layers that double the resolution; fast and unpool compute the same function",
    ] = "fast"
    dropout: Annotated[
        float, "share of the last features that training drops", Interval("[0, 1]")
    ] = 0.0
    zoom: Annotated[float, "largest random enlargement of training images; 1.5 as published"] = 1.0
    scoring_loss: Annotated[
        Literal["mean_squared_error", "berhu"], "loss that pruning criteria differentiate"
    ] = "mean_squared_error"
    frames: Annotated[
        Literal["rooms", "labelled", "single"],
        "rendered rooms, the labelled frames of NYU Depth v2, or a file for each frame",
    ] = "rooms"
    rooms: Annotated[int, "rendered rooms for training; an eighth as many are for the test"] = 160
    views: Annotated[int, "images of each rendered room"] = 8


DEPTH = DepthSettings(
    epochs=24,
    batch_size=16,
    optimiser="adam",
    learning_rate=2e-3,
    weight_decay=5e-5,
    clip=10.0,
    width=16,
)

PROFILES = {
    "smoke": replace(DEPTH, epochs=2, width=4, rooms=6, views=4),
    "embedded": DEPTH,
    "paper": replace(
        DEPTH,
        epochs=60,
        learning_rate=2e-4,
        weight_decay=1e-4,
        encoder="resnet50",
        width=64,
        init="pretrained",
        dropout=0.5,
        zoom=1.5,
        frames="labelled",
    ),
}

FRAMES, SPLIT = "nyu_depth_v2_labeled.mat", "splits.mat"
"""The labelled part of NYU Depth v2: 1,449 frames, 795 of them for training."""

WEIGHTS: Mapping[str, str] = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet50": "resnet50-0676ba61.pth",
}
"""Torchvision's first weights of each encoder, those of the published results."""

_SITE = "http://horatio.cs.nyu.edu/mit/silberman"
_TORCHVISION = "https://download.pytorch.org/models"

FILES: Mapping[str, tuple[str, str]] = {
    FRAMES: (f"{_SITE}/nyu_depth_v2/{FRAMES}", "520609c519fba3ba5ac58c8fefcc3530"),
    SPLIT: (f"{_SITE}/indoor_seg_sup/{SPLIT}", "08e3c3aea27130ac7c01ffd739a4535f"),
    WEIGHTS["resnet18"]: (
        f"{_TORCHVISION}/{WEIGHTS['resnet18']}",
        "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    ),
    WEIGHTS["resnet50"]: (
        f"{_TORCHVISION}/{WEIGHTS['resnet50']}",
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
    ),
}
"""The official files: their addresses, and their MD5 or SHA-256."""
