"""Progress of a matrix: a live table on a terminal, plain lines in a log."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from harness.matrix.dispatch import Tally
from harness.matrix.estimates import Estimates
from harness.matrix.state import counted, how_far, time_left
from harness.spec import Plan
from harness.storage.progress import Progress
from harness.text import duration

MOST_ROWS = 12
"""Running runs that are shown."""

SECONDS_BETWEEN_LINES = 60.0
"""In a log, between two lines about a running run."""

SECONDS_BETWEEN_LOOKS = 1.0
"""Between two looks at how far the running runs are."""

STOPPING = {
    1: "stopping: waiting for the current runs to finish; press Ctrl-C again to save and stop them",
    2: "stopping: saving the current runs; press Ctrl-C again to end them at once",
    3: "stopping: ending the current runs at once",
}
"""Announced when a matrix is asked to stop, by `harness.signals.StopRequest.level`."""


class ProgressDisplay:
    """Shows a tally while it changes.

    Args:
        name: of the matrix.
        plans: its runs, by name.
        tally: their states.
        estimates: how long runs take.
        slots: number of runs at a time.
        stream: where to write, usually standard error; None to show nothing.
        progress_of: returns how far a run is, None if that is unknown.
    """

    def __init__(
        self,
        name: str,
        plans: Mapping[str, Plan],
        tally: Tally,
        estimates: Estimates,
        slots: int,
        stream: TextIO | None,
        progress_of: Callable[[str], Progress | None] = lambda run_id: None,
    ) -> None:
        self._name, self._plans, self._tally = name, plans, tally
        self._estimates, self._slots = estimates, slots
        self._console = Console(file=stream, highlight=False, soft_wrap=True, quiet=stream is None)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._on_terminal = stream is not None and self._console.is_terminal
        self._shown_outcomes = set(tally.outcomes)
        self._shown_starts: dict[str, float] = {}
        self._last_progress = time.monotonic()
        self._shown_stop_level = 0
        self._progress_of = progress_of
        self._progress: dict[str, Progress | None] = {}
        self._last_look = -math.inf

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Keep the live table on the terminal until the context ends."""
        if not self._on_terminal:
            yield
            return
        with self._live:
            yield

    def show(self) -> None:
        """Show whatever has changed since the last call."""
        self._look()
        for run_id, started in list(self._tally.started.items()):
            if self._shown_starts.get(run_id) != started:
                self._shown_starts[run_id] = started
                self._print(f"{run_id} {self._tally.running.get(run_id, 'starts')}")
        for run_id in [run for run in self._tally.outcomes if run not in self._shown_outcomes]:
            self._shown_outcomes.add(run_id)
            self._print(self._outcome_line(run_id))
        if self._tally.stop_level > self._shown_stop_level:
            self._shown_stop_level = self._tally.stop_level
            self._print(STOPPING[min(self._shown_stop_level, max(STOPPING))])
        if self._on_terminal:
            self._live.update(self._table(), refresh=True)
        elif time.monotonic() - self._last_progress > SECONDS_BETWEEN_LINES:
            self._last_progress = time.monotonic()
            for run_id, line in list(self._tally.running.items())[:MOST_ROWS]:
                self._print(f"{run_id} {line}{self._also(run_id, line)}")

    def _look(self) -> None:
        """Find out how far the running runs are, now and then."""
        if time.monotonic() - self._last_look >= SECONDS_BETWEEN_LOOKS:
            self._last_look = time.monotonic()
            self._progress = {run_id: self._progress_of(run_id) for run_id in self._tally.running}

    def _also(self, run_id: str, line: str) -> str:
        """Return what a run's last line does not say about its progress."""
        progress = self._progress.get(run_id)
        if progress is None:
            return ""
        says_the_epoch = line.startswith("epoch ")
        parts = [time_left(progress) if says_the_epoch else how_far(progress)]
        return "".join(f"; {part}" for part in parts if part)

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False)

    def _outcome_line(self, run_id: str) -> str:
        tally, outcome = self._tally, self._tally.outcomes[run_id]
        took = f" in {duration(tally.seconds[run_id])}" if run_id in tally.seconds else ""
        because = f": {outcome.reason}" if outcome.reason else ""
        left = self._seconds_left()
        rest = f"; {duration(left)} left" if left else ""
        position = f"[{len(self._shown_outcomes)}/{tally.total}]"
        return f"{position} {run_id} {outcome.status}{took}{because}{rest}"

    def _table(self) -> Table:
        tally = self._tally
        left = self._seconds_left()
        caption = "" if left is None else f"expected to finish at about {_clock(left)}"
        table = Table(title=f"{self._name}: {counted(tally)}", caption=caption)
        for heading in ("running", "for", "progress", "last line"):
            table.add_column(heading, no_wrap=True)
        for run_id, line in list(tally.running.items())[:MOST_ROWS]:
            since = time.monotonic() - tally.started.get(run_id, time.monotonic())
            progress = self._progress.get(run_id)
            far = "" if progress is None else how_far(progress)
            table.add_row(run_id, duration(since), far, line)
        return table

    def _seconds_left(self) -> float | None:
        """Return how long the remaining runs will take; None if no similar run is known."""
        taken = list(self._tally.seconds.values())
        typical = sum(taken) / len(taken) if taken else None
        left = 0.0
        for run_id, plan in self._plans.items():
            progress = self._progress.get(run_id)
            if progress is not None and progress.seconds_left is not None:
                left += progress.seconds_left
            elif run_id not in self._tally.outcomes:
                spec = plan.spec
                known = self._estimates.seconds(spec.task, spec.profile, spec.pruner) or typical
                if known is None:
                    return None
                left += known
        return left / self._slots


def _clock(seconds: float) -> str:
    """Return the time of day after that many seconds."""
    return time.strftime("%H:%M", time.localtime(time.time() + seconds))
