"""Records for tests. They are typed as any value, because tests damage them."""

from __future__ import annotations

from typing import Any

from harness.results.example import EXAMPLE, example

RECORD: Any = EXAMPLE


def record(**changes: Any) -> Any:
    """Return the example with changes: ``cost__macs=1`` changes the ``macs`` of its ``cost``."""
    return example(**changes)
