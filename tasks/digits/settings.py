"""The settings of the digits. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from harness.foreign_models import IMAGE_MODEL
from tasks.images.settings import ImageSettings


@dataclass(frozen=True, kw_only=True)
class DigitsSettings(ImageSettings):
    """What can be set for the digits."""

    model: Annotated[Literal["resnet18", "vit"], "network", IMAGE_MODEL] = "resnet18"


DIGITS = DigitsSettings(
    epochs=20,
    batch_size=48,
    optimiser="adam",
    learning_rate=2e-3,
    weight_decay=5e-5,
    clip=10.0,
    width=32,
    shift=0,
)

PROFILES = {
    "smoke": replace(DIGITS, epochs=2, batch_size=256, width=4, blocks=2),
    "embedded": DIGITS,
}
