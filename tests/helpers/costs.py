"""Runs whose final network is not measured, which would take most of a small run's time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from harness.engine.final_costs import MEASURED

NOT_MEASURED = "this test measures no costs"
"""The reason that the record gives for each cost."""


def unmeasured(*arguments: object) -> dict[str, Any]:
    """Return what `final_costs` returns if it can measure nothing."""
    return {**dict.fromkeys(MEASURED), "reasons": dict.fromkeys(MEASURED, NOT_MEASURED)}


@contextlib.contextmanager
def nothing_measured() -> Iterator[None]:
    """Measure no final network in this context: for code that calls `run_plan` itself.

    Code that can should pass `unmeasured` to `run_plan`.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.engine.run_plan.final_costs", unmeasured)
        yield
