"""A record for the tests of what reads records."""

from __future__ import annotations

from typing import Any, cast

from harness.results.example import EXAMPLE, example

RECORD = cast(dict[str, Any], EXAMPLE)


def record(**changes: Any) -> dict[str, Any]:
    """Return the record with changes: ``cost__macs=1`` changes the ``macs`` of its ``cost``."""
    return cast(dict[str, Any], example(**changes))
