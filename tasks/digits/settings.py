"""The settings of the digits. Does not import torch."""

from __future__ import annotations

from dataclasses import replace

from tasks.images.settings import ImageSettings

DIGITS = ImageSettings(
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
    "smoke": replace(DIGITS, epochs=2, batch_size=256, width=4),
    "embedded": DIGITS,
}
