"""Reports that several tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports import report
from tests.helpers import fabricated


@pytest.fixture(scope="session")
def eventful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder in which everything that can happen to a run has happened."""
    return fabricated.save_eventful(tmp_path_factory.mktemp("eventful"))


@pytest.fixture(scope="session")
def page(eventful: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the report on it, without the figures beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "draw_all", lambda *arguments: {})
        return report.write(eventful, tmp_path_factory.mktemp("report"))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports are written without the figures beside the page, which take time."""
    monkeypatch.setattr(report, "draw_all", lambda *arguments: {})
