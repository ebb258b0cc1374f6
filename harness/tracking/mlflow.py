"""MLflow: a database in the results folder, unless ``MLFLOW_TRACKING_URI`` names another.

``mlflow ui --backend-store-uri sqlite:///results/tracking/mlflow/mlflow.db`` shows it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from harness.settings import as_text
from harness.tracking.tracker import PROJECT, TrackedRun

LONGEST_VALUE = 500
"""How many characters of a parameter every database of MLflow stores."""


class MLflow:
    """A run of an experiment, found again by its name."""

    def begin(self, run: TrackedRun) -> None:
        """Open the run of this name, or a new one."""
        local = f"sqlite:///{(run.folder / 'mlflow.db').resolve()}"
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", local))
        experiment = self._experiment(run)
        known = self._client.search_runs(
            [experiment], f"tags.`mlflow.runName` = '{run.name}'", max_results=1
        )
        if known:
            self._run = known[0].info.run_id
            self._client.update_run(self._run, "RUNNING")
            return
        self._run = self._client.create_run(experiment, run_name=run.name).info.run_id
        settings = [
            Param(name, as_text(value)[:LONGEST_VALUE]) for name, value in run.settings.items()
        ]
        self._client.log_batch(self._run, params=settings)

    def _experiment(self, run: TrackedRun) -> str:
        """Return the identity of the experiment, which the first run creates."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        if experiment is not None:
            return str(experiment.experiment_id)
        return str(self._client.create_experiment(name))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add values at a step."""
        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def end(self, step: int, status: str, summary: Mapping[str, float]) -> None:
        """Add the summary and close the run."""
        self.log(step, summary)
        self._client.log_batch(self._run, tags=[RunTag("status", status)])
        self._client.set_terminated(self._run, "FINISHED" if summary else "FAILED")
