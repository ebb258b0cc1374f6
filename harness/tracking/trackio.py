"""Trackio: its own folder on this machine, unless ``TRACKIO_DIR`` names another.

``trackio show --project pruning-benchmark`` shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import Context

import trackio

from harness.tracking.tracker import PROJECT, TrackedRun


class Trackio:
    """A run of a project, found again by its name."""

    def begin(self, run: TrackedRun) -> None:
        """Open the run of this name, or a new one."""
        # Within one context a new run would end the one before it.
        self._run = Context().run(
            trackio.init,
            project=PROJECT,
            name=run.name,
            config=dict(run.settings),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add values at a step."""
        self._run.log(dict(values), step=step)

    def end(self, step: int, status: str, summary: Mapping[str, float]) -> None:
        """Add the status and the summary at the last step, and close the run."""
        self._run.log({"status": status, **summary}, step=step)
        self._run.finish()
