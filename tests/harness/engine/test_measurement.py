"""Measuring a finished run again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.engine import measurement
from harness.engine.final_costs import MEASURED
from harness.engine.measurement import measure_run
from harness.errors import RunFailed
from harness.signals import Stop
from harness.storage.measurements import measurements, save_measurement
from tests.helpers.workbench import Workbench


def test_a_measurement_that_failed_does_not_hide_an_earlier_one(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = bench.run("dense")
    earlier = {"machine": "here", "taken": "2026", "environment": {}, "cost": {"step_ms": 7.0}}
    save_measurement(tmp_path, earlier)
    why = "the measuring process was killed"
    killed = {**dict.fromkeys(MEASURED), "reasons": dict.fromkeys(MEASURED, why)}
    monkeypatch.setattr(measurement, "measure_elsewhere", lambda *arguments: killed)
    cpu = torch.device("cpu")
    with pytest.raises(RunFailed, match=why):
        measure_run(
            tmp_path, record, bench.registry, cpu, (), Path("data"), 0.0, lambda line: None, Stop()
        )
    assert [each["cost"]["step_ms"] for each in measurements(tmp_path)] == [7.0]
