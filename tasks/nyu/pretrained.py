"""An encoder's ImageNet weights, as torchvision publishes them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn

from harness.errors import RequestError

FILES = {"resnet18": "resnet18-f37072fd.pth", "resnet50": "resnet50-0676ba61.pth"}
"""Torchvision's first weights of each, the ones of the published results. A name ends with the
beginning of the file's SHA-256."""
ADDRESS = "https://download.pytorch.org/models/"


def load_encoder(encoder: nn.Module, name: str, folder: Path) -> None:
    """Put published weights into an encoder of the published width.

    Args:
        encoder: `tasks.nyu.model.residual_encoder`.
        name: ``resnet18`` or ``resnet50``.
        folder: where the file lies.

    Raises:
        RequestError: the file is missing or changed, or the encoder has another width.
    """
    path = folder / FILES[name]
    hint = f"put {ADDRESS}{path.name} there, or train from scratch with init=scratch"
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RequestError(f"nyu: cannot read {path}: {error.strerror}; {hint}") from None
    if not found.startswith(path.stem.rpartition("-")[2]):
        raise RequestError(
            f"nyu: {path} is truncated or changed: its SHA-256 begins with {found[:8]}; {hint}"
        )
    weights = torch.load(path, map_location="cpu", weights_only=True)
    try:
        encoder.load_state_dict({k: v for k, v in weights.items() if not k.startswith("fc.")})
    except RuntimeError:
        raise RequestError(
            f"nyu: the weights of {path.name} fit a {name} with width=64 only; "
            "for another, train from scratch with init=scratch"
        ) from None
