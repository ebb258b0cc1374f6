"""Networks of timm: the smallest of each of its modules, with inputs as small as they take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NETWORKS: Mapping[str, tuple[Mapping[str, Any], int]] = {
    "resnet10t": ({}, 64),
}
"""By name: the options with which it is built, and the pixels of a side of its input."""
