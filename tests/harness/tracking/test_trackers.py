"""The trackers of this project, each with its library, on this machine alone."""

from __future__ import annotations

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from harness.tracking.tracker import ENTRY_POINT_GROUP, Settings, TrackedRun, Tracker

RUN = "digits-snip-0.9-seed0-0123456789ab"
SETTINGS: Settings = {"task": "digits", "sparsity": 0.9, "kernel": False, "teacher": None}

PYPROJECT = Path(__file__).resolve().parents[3] / "pyproject.toml"
PROJECT: dict[str, Any] = tomllib.loads(PYPROJECT.read_text())["project"]
TRACKERS: dict[str, str] = PROJECT["entry-points"][ENTRY_POINT_GROUP]


def test_each_tracker_has_an_extra_of_its_name() -> None:
    assert TRACKERS.keys() == {"mlflow", "tensorboard", "trackio", "wandb"}
    assert TRACKERS.keys() <= PROJECT["optional-dependencies"].keys()


def tell(name: str, folder: Path) -> None:
    """Tell a tracker of a run that is interrupted after 20 steps and resumed, beside another."""
    make: type[Tracker] = EntryPoint(name, TRACKERS[name], ENTRY_POINT_GROUP).load()
    folder.mkdir()
    other = make()
    other.begin(TrackedRun("other", SETTINGS, folder))
    first = make()
    first.begin(TrackedRun(RUN, SETTINGS, folder))
    first.log(10, {"loss": 2.0, "validation/accuracy": 50.0})
    first.log(20, {"loss": 1.0, "validation/accuracy": 75.0})
    other.log(5, {"loss": 9.0})
    first.log(20, {"sparsity": 0.5})
    first.end(20, "interrupted", {})
    second = make()
    second.begin(TrackedRun(RUN, SETTINGS, folder, is_resumed=True))
    second.log(30, {"loss": 0.5, "validation/accuracy": 87.5})
    second.end(30, "done", {"quality/test": 81.25})
    other.end(5, "failed", {})


CURVES = {
    "loss": [(10, 2.0), (20, 1.0), (30, 0.5)],
    "sparsity": [(20, 0.5)],
    "quality/test": [(30, 81.25)],
}


def test_tensorboard_has_a_curve_for_each_value(tmp_path: Path) -> None:
    tell("tensorboard", tmp_path / "tracker")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(tmp_path / "tracker" / RUN))
    shown.Reload()

    curves = {name: [(e.step, e.value) for e in shown.Scalars(name)] for name in CURVES}
    assert curves == CURVES
    (settings,) = shown.Tensors("settings/text_summary")
    assert b"| sparsity | 0.9 |" in settings.tensor_proto.string_val[0]
    ended = [e.tensor_proto.string_val[0] for e in shown.Tensors("status/text_summary")]
    assert ended == [b"interrupted", b"done"]
    assert "hparams" in shown.summary_metadata["_hparams_/experiment"].plugin_data.plugin_name


@pytest.mark.filterwarnings("default")  # MLflow uses what its database library deprecates
def test_mlflow_has_one_run_with_its_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tell("mlflow", tmp_path / "tracker")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/tracker/mlflow.db")
    experiment = client.get_experiment_by_name("pruning-benchmark")
    runs = client.search_runs([experiment.experiment_id])

    assert sorted(run.info.run_name for run in runs) == [RUN, "other"]
    (run,) = [run for run in runs if run.info.run_name == RUN]
    assert (run.info.status, run.data.tags["status"]) == ("FINISHED", "done")
    assert run.data.params["sparsity"] == "0.9"
    curves = {
        name: [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, name)]
        for name in CURVES
    }
    assert curves == CURVES


def test_trackio_has_one_run_with_its_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "shown"))
    pytest.importorskip("trackio")
    tell("trackio", tmp_path / "tracker")
    from trackio.sqlite_storage import SQLiteStorage

    assert sorted(SQLiteStorage.get_runs("pruning-benchmark")) == [RUN, "other"]
    rows = SQLiteStorage.get_logs("pruning-benchmark", RUN)
    curves = {name: [(r["step"], r[name]) for r in rows if name in r] for name in CURVES}
    assert curves == CURVES


def test_wandb_writes_both_parts_of_a_run_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    tell("wandb", tmp_path / "tracker")
    files = [path.name for path in (tmp_path / "tracker").rglob("*.wandb")]
    assert sorted(files) == [f"run-{RUN}.wandb", f"run-{RUN}.wandb", "run-other.wandb"]
