"""What all tests share: threads, a cache folder, and disks that can be filled."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from harness.data.cache import VARIABLE

torch.set_num_threads(1)
settings.register_profile("shared_machine", deadline=None)
settings.load_profile("shared_machine")


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder for the tests, in place of the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(folder))
        yield folder


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """Compute with denormals again after a test: a run flushes them, which hypothesis refuses."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 300 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("only root can mount a disk of a given size")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def remount() -> Callable[[Path, str], None]:
    """Return a function that mounts a disk again with another option, such as ``ro``."""
    return lambda folder, option: subprocess.run(
        ["mount", "-o", f"remount,{option}", str(folder)], check=True
    ).check_returncode()
