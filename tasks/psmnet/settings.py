"""The settings of stereo matching, and how to get its official files. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from harness.settings import PublishedDataSettings


@dataclass(frozen=True, kw_only=True)
class StereoSettings(PublishedDataSettings):
    """What can be set for stereo matching."""

    dataset: Annotated[
        Literal["scenes", "sceneflow", "kitti2012", "kitti2015"],
        "rendered scenes, or an official data set",
    ] = "scenes"
    training_scenes: Annotated[int, "rendered scenes for training and validation; at least 20"] = (
        160
    )
    test_scenes: Annotated[int, "rendered scenes for the test"] = 24
    model: Annotated[
        Literal["basic", "stacked_hourglass"], "one of the two networks of the authors' code"
    ] = "basic"
    width: Annotated[int, "channels of the features; 32 as published"]
    max_disparity: Annotated[int, "pixels; disparities below it count; a multiple of 16"] = 32
    pooling: Annotated[
        int, "side of the largest pooled region in pixels of the features; a multiple of 8"
    ]
    crop_height: Annotated[int, "rows of a training crop; a multiple of 16, at least 4 pooling"]
    crop_width: Annotated[int, "columns of a training crop; a multiple of 16, at least 4 pooling"]


STEREO = StereoSettings(
    epochs=16,
    batch_size=2,
    optimiser="adam",
    learning_rate=2e-3,
    weight_decay=0.0,
    clip=0.0,
    width=8,
    pooling=16,
    crop_height=64,
    crop_width=128,
)

PROFILES = {
    "smoke": replace(
        STEREO,
        epochs=2,
        batch_size=4,
        training_scenes=21,
        test_scenes=2,
        width=4,
        pooling=8,
        crop_height=32,
        crop_width=64,
    ),
    "embedded": STEREO,
    "paper": replace(
        STEREO,
        epochs=10,
        batch_size=12,
        learning_rate=1e-3,
        dataset="sceneflow",
        model="stacked_hourglass",
        width=32,
        max_disparity=192,
        pooling=64,
        crop_height=256,
        crop_width=512,
    ),
}

BY_HAND = (
    "SceneFlow/FlyingThings3D, SceneFlow/Monkaa and SceneFlow/Driving with the folders "
    "frames_cleanpass and disparity of the archives of that name, for research only, from "
    "https://lmb.informatik.uni-freiburg.de/resources/datasets/SceneFlowDatasets.en.html",
    "Kitti2012 with the folder training of data_stereo_flow.zip, after a registration, from "
    "https://www.cvlibs.net/datasets/kitti/eval_stereo_flow.php?benchmark=stereo",
    "Kitti2015 with the folder training of data_scene_flow.zip, after a registration, from "
    "https://www.cvlibs.net/datasets/kitti/eval_scene_flow.php?benchmark=stereo",
)
