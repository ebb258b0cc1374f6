"""The engine: it carries out pruning methods on tasks, and knows neither by name."""

from __future__ import annotations

from typing import Any

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Import on demand, so that the command line answers before torch is there."""
    if name == "load":
        from harness.network import load

        return load
    raise AttributeError(f"module 'harness' has no attribute {name!r}")
