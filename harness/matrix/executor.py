"""Where runs are carried out: the contract of an executor, which is one file and an entry point.

An executor takes orders and answers each with a future. It is registered in the group
``pruning_benchmark.executors`` by the name that ``--executor`` takes.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from harness.errors import RequestError, nearest
from harness.spec import Plan

ENTRY_POINT_GROUP = "pruning_benchmark.executors"
"""Where executors are registered."""


Status = Literal[
    "done",
    "collapsed",
    "diverged",
    "skipped",
    "failed",
    "damaged",
    "interrupted",
    "elsewhere",
    "lost",
]
"""How a run ended: with a record in the first three cases.

``skipped``: the method has no meaning here. ``damaged``: its record cannot be read.
``interrupted``: it was asked to stop, and saved itself. ``elsewhere``: another process is carrying
it out. ``lost``: its process or machine is gone.
"""

Report = Callable[[str, str], None]
"""Takes a run's name and a line about how far it is; called from any thread."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    status: Status
    reason: str | None = None
    details: str = ""
    """What else its process said."""


@dataclass(frozen=True)
class Order:
    """A run to be carried out: all that a process needs to know, wherever it is."""

    plan: Plan
    plugins: tuple[Path, ...]
    results: Path
    checkpoint_every: float
    """Seconds between two checkpoints."""
    bytes_expected: int | None = None
    """What such a run needed before, None if that is not known."""
    cache: Path | None = None
    """Folder for decoded copies of data; None for that of the machine itself."""
    again: bool = False
    """Whether it was done before, and is carried out once more (`Store.again`)."""

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.plan.run_id


@dataclass(frozen=True)
class Resources:
    """What may be used, and what one run may use of it."""

    jobs: int | None = None
    """Runs at once; None for as many as there is room for."""
    device: str = "auto"
    exclusive: bool = False
    """One run at a time, so that nothing disturbs its timings."""
    time_limit: float | None = None
    """Seconds for one run."""
    memory_limit: int | None = None
    """Bytes for one run."""
    threads: int | None = None
    """Threads of one run; None to divide the machine's."""
    partition: str | None = None
    """Of a cluster."""
    patience: float = 24 * 3600.0
    """Seconds after which a cluster that lets nothing begin is given up."""


class Executor(Protocol):
    """Carries out orders, some at a time."""

    slots: int
    """How many at a time, as far as it is known."""

    def __init__(self, resources: Resources, report: Report, folder: Path) -> None:
        """Get ready.

        Args:
            resources: what may be used.
            report: takes what the runs say.
            folder: for files of its own.

        Raises:
            RequestError: these resources are not there.
        """

    def submit(self, order: Order) -> Future[Outcome]:
        """Let a run be carried out when its turn comes.

        The future is cancelled if that did not come before the `shutdown`. What it raises counts
        as a run that was lost.
        """

    def shutdown(self, *, now: bool = False) -> None:
        """Begin nothing new, and return at once.

        Args:
            now: ask what is being carried out to save itself and stop; end what does not.
        """


def find_executor(name: str) -> type[Executor]:
    """Return the executor of that name.

    Raises:
        RequestError: there is none, or what it needs is not installed.
    """
    points = {
        point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    }
    if name not in points:
        raise RequestError(f"unknown executor {name!r}{nearest(name, points)}")
    try:
        executor: type[Executor] = points[name].load()
    except ImportError as error:
        raise RequestError(
            f"executor {name!r}: {error.name} is not installed; "
            f"pip install 'pruning-benchmark[{name}]' installs it"
        ) from None
    return executor
