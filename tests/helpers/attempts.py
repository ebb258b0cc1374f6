"""Attempts at one run in one results folder: each resumes what the attempts before it left."""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.engine.run_plan import run_plan
from harness.signals import Stop
from harness.spec import Plan
from harness.storage.store import Store
from tests.helpers.costs import unmeasured
from tests.helpers.workbench import CPU, Workbench

OFTEN = 0.0
"""Seconds between checkpoints: one at every opportunity."""
NEVER = 3600.0


@dataclass
class Attempts:
    """Attempts at one run, in one results folder; its final network is not measured."""

    bench: Workbench
    plan: Plan
    results: Path
    lines: list[str] = field(default_factory=list)
    """What all attempts reported."""

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.results / self.plan.run_id

    @property
    def checkpoints(self) -> list[Path]:
        """The checkpoints, the newest last."""
        return sorted(self.folder.glob("checkpoint-*.pt"))

    def go(self, stop: Stop | None = None, checkpoints: float = OFTEN) -> Any:
        """Start the run, or resume it.

        Args:
            stop: interrupts the attempt.
            checkpoints: seconds between two checkpoints.
        """
        with pytest.MonkeyPatch.context() as patch:
            # These take most of the time of such short runs and change no result.
            patch.setattr(os, "fsync", lambda file: None)
            patch.setattr(gc, "collect", lambda *generation: 0)
            return run_plan(
                self.plan,
                self.bench.registry,
                Store(self.results),
                CPU,
                self.lines.append,
                stop or Stop(),
                checkpoints,
                measure=unmeasured,
            )


def attempts(bench: Workbench, pruner: str, name: str = "attempts", **request: Any) -> Attempts:
    """Return attempts at a run, in a results folder of that name."""
    return Attempts(bench, bench.plan(pruner, **request), bench.folder / name)
