"""An encoder's ImageNet weights, as torchvision publishes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.data.download import require_checksum
from harness.errors import RequestError

if TYPE_CHECKING:
    from torch import nn

FILES: Mapping[str, tuple[str, str]] = {
    "resnet18": (
        "resnet18-f37072fd.pth",
        "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    ),
    "resnet50": (
        "resnet50-0676ba61.pth",
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
    ),
}
"""Torchvision's first weights of each, the ones of the published results, and their SHA-256."""


def require_weights(name: str, folder: Path) -> Path:
    """Return the file of an encoder's published weights.

    Args:
        name: ``resnet18`` or ``resnet50``.
        folder: where it lies.

    Raises:
        RequestError: it is missing or changed.
    """
    file, checksum = FILES[name]
    require_checksum(folder / file, checksum, "nyu")
    return folder / file


def load_encoder(encoder: nn.Module, name: str, folder: Path) -> None:
    """Put published weights into an encoder of the published width.

    Args:
        encoder: `tasks.nyu.model.residual_encoder`.
        name: ``resnet18`` or ``resnet50``.
        folder: where the file lies.

    Raises:
        RequestError: the file is missing or changed, or the encoder has another width.
    """
    import torch

    path = require_weights(name, folder)
    weights = torch.load(path, map_location="cpu", weights_only=True)
    try:
        encoder.load_state_dict({k: v for k, v in weights.items() if not k.startswith("fc.")})
    except RuntimeError:
        raise RequestError(
            f"nyu: the weights of {path.name} fit a {name} with width=64 only; "
            "for another, train from scratch with init=scratch"
        ) from None
