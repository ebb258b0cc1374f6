"""The user's cache folder, where decoded copies of data lie: the data folder is only read.

Whatever lies there may be removed at any time: it is made again when it is needed.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from harness.errors import RequestError

VARIABLE = "PRUNING_BENCHMARK_CACHE"
"""The environment variable that names the folder; processes that a run starts inherit it."""

REMEDY = f"--cache DIR, or the environment variable {VARIABLE}, names another folder"


def use_cache(folder: Path) -> None:
    """Let this process, and those that it starts, keep decoded copies in a folder.

    Raises:
        RequestError: there is something there that is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise RequestError(f"--cache {folder}: is not a folder")
    os.environ[VARIABLE] = str(folder.resolve())


def cache_folder() -> Path:
    """Return the folder for decoded copies, which need not be there.

    It is what `use_cache` or the environment variable names, or else this project's part of the
    cache folder that the system gives each user.

    Raises:
        RequestError: the user has no home folder, and no folder is named.
    """
    named = os.environ.get(VARIABLE)
    folder = Path(named) if named else platformdirs.user_cache_path("pruning-benchmark")
    if not folder.is_absolute():
        if not named:
            raise RequestError(f"there is no home folder for decoded copies of data: {REMEDY}")
        folder = folder.absolute()
    return folder
