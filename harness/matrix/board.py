"""How a matrix is doing: a live table on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from harness.matrix.dispatch import Tally
from harness.matrix.estimates import Estimates, duration
from harness.matrix.executor import Outcome
from harness.spec import Plan
from harness.text import several

MOST_ROWS = 12
"""Of running runs that are shown."""

SECONDS_BETWEEN_LINES = 60.0
"""In a log, between two lines of a run that is running."""

STOPPING = {
    1: "stopping: the current runs go on to their end; Ctrl-C again saves and stops them",
    2: "stopping: the current runs save themselves; Ctrl-C again ends them at once",
    3: "stopping: the current runs are ended at once",
}
"""What a matrix says when it is asked to stop, by `harness.signals.Urgency`."""


class Board:
    """Shows a tally while it changes.

    Args:
        name: of the matrix.
        plans: its runs.
        tally: where each of them is.
        estimates: what they will take.
        slots: how many are at work at one time.
        stream: where it is written, standard error as a rule.
    """

    def __init__(
        self,
        name: str,
        plans: Mapping[str, Plan],
        tally: Tally,
        estimates: Estimates,
        slots: int,
        stream: TextIO,
    ) -> None:
        self._name, self._plans, self._tally = name, plans, tally
        self._estimates, self._slots = estimates, slots
        self._console = Console(file=stream, highlight=False, soft_wrap=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._on_terminal = self._console.is_terminal
        self._told = set(tally.outcomes)
        self._told_begun: dict[str, float] = {}
        self._told_progress = time.monotonic()
        self._told_urgency = 0

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Show it until the end of the context."""
        if not self._on_terminal:
            yield
            return
        with self._live:
            yield

    def show(self) -> None:
        """Show what has changed."""
        for run_id, began in list(self._tally.began.items()):
            if self._told_begun.get(run_id) != began:
                self._told_begun[run_id] = began
                self._print(f"{run_id} {self._tally.at_work.get(run_id, 'starts')}")
        for run_id in [run for run in self._tally.outcomes if run not in self._told]:
            self._told.add(run_id)
            self._print(self._line(run_id))
        if self._tally.urgency > self._told_urgency:
            self._told_urgency = self._tally.urgency
            self._print(STOPPING[min(self._told_urgency, max(STOPPING))])
        if self._on_terminal:
            self._live.update(self._table(), refresh=True)
        elif time.monotonic() - self._told_progress > SECONDS_BETWEEN_LINES:
            self._told_progress = time.monotonic()
            for run_id, line in list(self._tally.at_work.items())[:MOST_ROWS]:
                self._print(f"{run_id} {line}")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False)

    def _line(self, run_id: str) -> str:
        """Say how a run ended."""
        tally, outcome = self._tally, self._tally.outcomes[run_id]
        took = f" in {duration(tally.seconds[run_id])}" if run_id in tally.seconds else ""
        because = f": {outcome.reason}" if outcome.reason else ""
        left = self._seconds_left()
        rest = f"; {duration(left)} left" if left else ""
        counted = f"[{len(self._told)}/{tally.total}]"
        return f"{counted} {run_id} {outcome.status}{took}{because}{rest}"

    def _table(self) -> Table:
        tally = self._tally
        left = self._seconds_left()
        end = "unknown" if left is None else _clock(left)
        table = Table(title=f"{self._name}: {counted(tally)}", caption=f"finished at about {end}")
        for heading in ("running", "for", "progress"):
            table.add_column(heading, no_wrap=True)
        for run_id, line in list(tally.at_work.items())[:MOST_ROWS]:
            since = time.monotonic() - tally.began.get(run_id, time.monotonic())
            table.add_row(run_id, duration(since), line)
        return table

    def _seconds_left(self) -> float | None:
        """Return how long the rest will take, None if nothing like it is known."""
        taken = list(self._tally.seconds.values())
        typical = sum(taken) / len(taken) if taken else None
        left = 0.0
        for run_id, plan in self._plans.items():
            if run_id not in self._tally.outcomes:
                spec = plan.spec
                known = self._estimates.seconds(spec.task, spec.profile, spec.pruner) or typical
                if known is None:
                    return None
                left += known
        return left / self._slots


def _clock(seconds: float) -> str:
    """Return what time it will be."""
    return time.strftime("%H:%M", time.localtime(time.time() + seconds))


def counted(tally: Tally) -> str:
    """Return how many runs are where."""
    counts = [
        *sorted(tally.count().items()),
        ("running", len(tally.at_work)),
        ("waiting", tally.waiting),
    ]
    parts = [f"{number} {name}" for name, number in counts if number]
    return ": ".join(filter(None, (several(tally.total, "run"), ", ".join(parts))))


def ended_badly(outcomes: Mapping[str, Outcome]) -> bool:
    """Return whether a run failed, or its record is damaged."""
    return any(outcome.status in ("failed", "damaged") for outcome in outcomes.values())
