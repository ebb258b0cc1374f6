"""The contract of an executor: it takes jobs and answers each with a future.

An executor is one class, registered as an entry point in the group
``pruning_benchmark.executors`` under the name that ``--executor`` takes.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from harness import record
from harness.importing import load_entry_point
from harness.spec import Plan

ENTRY_POINT_GROUP = "pruning_benchmark.executors"
"""Where executors are registered."""


Status = record.Status | Literal["damaged", "interrupted", "elsewhere", "lost"]
"""How a run ended; in the first three cases it left a record.

``skipped``: the method does not apply here. ``damaged``: its record cannot be read.
``interrupted``: it was asked to stop and saved itself. ``elsewhere``: another process is running
it. ``lost``: its process or machine is gone.
"""

Report = Callable[[str, str], None]
"""Receives a run's name and a line about its progress, from any thread."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    status: Status
    reason: str | None = None
    details: str = ""
    """Whatever else its process printed."""


@dataclass(frozen=True)
class Job:
    """A run, with everything that a process needs to carry it out on any machine."""

    plan: Plan
    plugins: tuple[Path, ...]
    results: Path
    checkpoint_every: float
    """Seconds between two checkpoints."""
    bytes_expected: int | None = None
    """Memory that similar runs needed before; None if unknown."""
    cache: Path | None = None
    """Folder for decoded copies of data; None for the machine's own."""
    again: bool = False
    """Whether a finished run is repeated (`Store.again`)."""
    measure_later: bool = False
    """Whether costs that need a quiet machine are left for later, when all runs have ended."""

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.plan.run_id


Order = Job
"""The former name of `Job`; executors of other projects import it."""


@dataclass(frozen=True)
class Resources:
    """What an executor may use, and what one run may use of it."""

    jobs: int | None = None
    """Runs at a time; None for as many as fit."""
    device: str = "auto"
    exclusive: bool = False
    """One run at a time, so that nothing disturbs its timings."""
    time_limit: float | None = None
    """Seconds per run."""
    memory_limit: int | None = None
    """Bytes per run."""
    threads: int | None = None
    """Threads per run; None to divide the machine's cores."""
    partition: str | None = None
    """Partition of the cluster."""
    patience: float = 24 * 3600.0
    """Give up if the cluster starts no job for this many seconds."""


class Executor(Protocol):
    """Runs jobs, several at a time.

    If its class has an attribute ``on_this_machine`` that is true, networks are measured after all
    training, on the machine of the matrix, unless the user says otherwise.
    """

    slots: int
    """Jobs at a time, as far as it is known."""

    def __init__(self, resources: Resources, report: Report, folder: Path) -> None:
        """Prepare the executor.

        Args:
            resources: what it may use.
            report: receives the progress of the runs.
            folder: for the executor's own files.

        Raises:
            RequestError: these resources are not available.
        """

    def submit(self, job: Job, /) -> Future[Outcome]:
        """Queue a job.

        The future is cancelled if a `shutdown` comes before the job starts. A future that raises
        counts as a lost run.
        """

    def shutdown(self, *, now: bool = False) -> None:
        """Start no further jobs, and return at once.

        Args:
            now: also ask the current jobs to save themselves and stop, and end those that do not.
        """


def find_executor(name: str) -> type[Executor]:
    """Return the executor of that name.

    Raises:
        RequestError: there is none, or a package that it needs is not installed.
    """
    executor: type[Executor] = load_entry_point(ENTRY_POINT_GROUP, "executor", name)
    return executor
