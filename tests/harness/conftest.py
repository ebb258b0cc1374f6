"""What the tests of the engine share."""

from __future__ import annotations

import gc
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from workbench import Workbench

# A run collects garbage before it measures memory: all that the imports made need not be gone
# through every time.
gc.freeze()


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """Runs of a small task, in a folder of their own."""
    return Workbench(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 300 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("a disk of a certain size can only be made by root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
