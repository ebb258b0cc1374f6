"""TensorBoard: event files, which ``tensorboard --logdir results/tracking/tensorboard`` shows."""

from __future__ import annotations

from collections.abc import Mapping

from torch.utils.tensorboard import SummaryWriter

from harness.settings import as_text
from harness.tracking.tracker import TrackedRun


class TensorBoard:
    """A folder of event files for each run.

    The settings are a table under Text, and the columns of HParams beside the results and costs.
    """

    def begin(self, run: TrackedRun) -> None:
        """Open the run's folder; what is added goes into a further file."""
        self._settings = run.settings
        self._writer = SummaryWriter(str(run.folder / run.name))
        if not run.is_resumed:
            rows = [f"| {name} | {as_text(value)} |" for name, value in run.settings.items()]
            table = "\n".join(["| setting | value |", "|---|---|", *rows])
            self._writer.add_text("settings", table)
            self._writer.flush()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to the curve of each value."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def end(self, step: int, status: str, summary: Mapping[str, float]) -> None:
        """Add the status and the summary, and close the file."""
        self._writer.add_text("status", status, step)
        if summary:
            known = {name: value for name, value in self._settings.items() if value is not None}
            # In the same folder, or TensorBoard would show a run within the run.
            self._writer.add_hparams(known, dict(summary), run_name=".", global_step=step)
        self._writer.close()
