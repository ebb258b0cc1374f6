"""Trackers that the tests of tracking find by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.trackers import register_trackers


@pytest.fixture(autouse=True)
def trackers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the trackers of the tests."""
    register_trackers(tmp_path, monkeypatch)
