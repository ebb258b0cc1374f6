"""Records for tests, as plain dictionaries that a test may damage."""

from __future__ import annotations

from typing import Any, cast

from harness.results.example import EXAMPLE, example

RECORD = cast(dict[str, Any], EXAMPLE)


def record(**changes: Any) -> dict[str, Any]:
    """Return the example with changes: ``cost__macs=1`` changes the ``macs`` of its ``cost``."""
    return cast(dict[str, Any], example(**changes))
