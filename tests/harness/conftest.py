"""What the tests of the engine share."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from tests.helpers.workbench import Workbench

# A run collects garbage before it measures memory: all that the imports made need not be gone
# through every time.
gc.freeze()


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """Runs of a small task, in a folder of their own."""
    return Workbench(tmp_path)
