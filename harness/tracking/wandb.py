"""Weights & Biases, offline unless ``WANDB_MODE`` says otherwise.

``wandb sync`` uploads what was written offline. The environment variables of wandb, such as
``WANDB_PROJECT`` and ``WANDB_ENTITY``, apply.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import wandb

from harness.tracking.tracker import PROJECT, TrackedRun


class Wandb:
    """A run of a project, whose identity is the name of the run."""

    def begin(self, run: TrackedRun) -> None:
        """Open the run. Offline, a resumed run gets a further folder with the same identity."""
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            mode=os.environ.get("WANDB_MODE", "offline"),
            id=run.name,
            name=run.name,
            config=dict(run.settings),
            dir=str(run.folder),
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add values at a step."""
        self._run.log(dict(values), step=step)

    def end(self, step: int, status: str, summary: Mapping[str, float]) -> None:
        """Write the summary and close the run."""
        self._run.summary.update({"status": status, **summary})
        self._run.finish(exit_code=0 if summary else 1)
