"""A number, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """A measured number; None with a reason where it could not be had."""

    value: int | float | None
    reason: str | None = None
