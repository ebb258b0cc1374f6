"""The cache folder for decoded copies of data, without importing NumPy."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from harness.errors import RequestError

VARIABLE = "PRUNING_BENCHMARK_CACHE"
"""The environment variable of the cache folder, inherited by the processes that a run starts."""

REMEDY = f"--cache DIR, or the environment variable {VARIABLE}, names another folder"


def use_cache(folder: Path) -> None:
    """Use a folder for decoded copies, in this process and those that it starts.

    Raises:
        RequestError: the path exists but is not a folder.
    """
    if folder.exists() and not folder.is_dir():
        raise RequestError(f"--cache {folder} is not a folder")
    os.environ[VARIABLE] = str(folder.resolve())


def cache_folder() -> Path:
    """Return the folder for decoded copies, which may not exist yet.

    It is the folder of `use_cache` or of the environment variable, or else this project's part of
    the user's cache folder.

    Raises:
        RequestError: the user has no home folder, and no other folder is named.
    """
    named = os.environ.get(VARIABLE)
    folder = Path(named) if named else platformdirs.user_cache_path("pruning-benchmark")
    if not folder.is_absolute():
        if not named:
            raise RequestError(f"there is no home folder for decoded copies of data: {REMEDY}")
        folder = folder.absolute()
    return folder
