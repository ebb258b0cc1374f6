"""Tracking runs while they are carried out, from a process of its own.

The process reads what the runs write into their folders. It takes no part in their work, so a
tracker that is slow, large or broken changes neither their results nor their memory.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from harness.errors import RequestError, warn
from harness.importing import without_main_module
from harness.signals import block_signals
from harness.tracking.following import Followed, Following

SECONDS_BETWEEN_LOOKS = 1.0
PATIENCE = 60.0
"""Seconds that trackers have after the runs to finish their work."""


@contextlib.contextmanager
def tracked(names: Sequence[str], runs: Iterable[Followed], results: Path) -> Iterator[None]:
    """Let trackers follow runs until the context ends.

    Args:
        names: of the trackers; without any, nothing is started.
        runs: the runs; not iterated over without a tracker.
        results: the results folder.

    Raises:
        RequestError: a tracker is not known, or not installed.
    """
    if not names:
        yield
        return
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_follow, args=(theirs, names, list(runs), results))
    # Started first, because it unblocks signals when it starts.
    resource_tracker.ensure_running()
    with block_signals(), without_main_module():
        process.start()
    theirs.close()
    try:
        _require_ready(ours)
        yield
    finally:
        _end(process, ours)


def _require_ready(connection: Connection) -> None:
    """Wait until the trackers are loaded.

    Raises:
        RequestError: one could not be.
    """
    try:
        refused = connection.recv()
    except EOFError:
        raise RequestError("the process of the trackers has crashed") from None
    if refused:
        raise RequestError(refused)


def _end(process: BaseProcess, connection: Connection) -> None:
    """Let the trackers finish, and pass on their warnings."""
    with contextlib.suppress(OSError):
        connection.send(None)
    end = time.monotonic() + PATIENCE
    try:
        while connection.poll(max(0.0, end - time.monotonic())):
            warn(connection.recv())
        warn(f"the trackers have not finished {PATIENCE:g} seconds after the runs, and are stopped")
    except (EOFError, OSError):
        process.join(max(0.0, end - time.monotonic()))
        if process.exitcode:
            warn(f"the process of the trackers has crashed (exit code {process.exitcode})")
    finally:
        process.kill()
        process.join()


def _follow(
    connection: Connection, names: Sequence[str], runs: Sequence[Followed], results: Path
) -> None:
    """Follow runs until the other end of the connection sends something or is closed."""
    _keep_quiet()
    os.nice(10)
    try:
        following = Following(names, runs, results, connection.send)
    except RequestError as error:
        connection.send(str(error))
        return
    connection.send("")
    while not connection.poll(SECONDS_BETWEEN_LOOKS):
        following.catch_up()
    # The process of the runs may have been killed.
    with contextlib.suppress(BrokenPipeError):
        following.catch_up(last=True)


def _keep_quiet() -> None:
    """Drop what the libraries of trackers print: it would mix with progress and JSON."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        os.dup2(null, descriptor)
    os.close(null)
