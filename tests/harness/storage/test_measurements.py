"""Measurements that stand beside a record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.storage.measurements import measurements, save_measurement


def measured(machine: str, second: int, disturbed: bool = False) -> dict[str, Any]:
    marks = {"step_ms": 0.3} if disturbed else {}
    return {
        "machine": machine,
        "taken": f"2026-01-01T00:00:{second:02}+00:00",
        "environment": {},
        "cost": {"step_ms": float(second), "disturbed": marks},
    }


def steps(run: Path) -> list[float]:
    return [each["cost"]["step_ms"] for each in measurements(run)]


def test_the_newest_quiet_measurement_of_a_machine_counts(tmp_path: Path) -> None:
    for second, disturbed in [(1, False), (2, False), (3, True), (4, True)]:
        save_measurement(tmp_path, measured("here", second, disturbed))
    assert steps(tmp_path) == [2.0]


def test_a_disturbed_measurement_counts_while_there_is_no_quiet_one(tmp_path: Path) -> None:
    save_measurement(tmp_path, measured("here", 1, disturbed=True))
    save_measurement(tmp_path, measured("here", 2, disturbed=True))
    assert steps(tmp_path) == [2.0]
    save_measurement(tmp_path, measured("here", 3))
    assert steps(tmp_path) == [3.0]


def test_each_machine_has_its_own_measurement_and_the_newest_is_last(tmp_path: Path) -> None:
    save_measurement(tmp_path, measured("there", 5))
    save_measurement(tmp_path, measured("here", 1))
    assert steps(tmp_path) == [1.0, 5.0]


def test_a_damaged_file_is_no_measurement_and_is_replaced(tmp_path: Path) -> None:
    path = save_measurement(tmp_path, measured("here", 1))
    path.write_bytes(path.read_bytes()[:20])
    assert steps(tmp_path) == []
    save_measurement(tmp_path, measured("here", 2))
    assert steps(tmp_path) == [2.0]


def test_a_run_without_measurements_has_none(tmp_path: Path) -> None:
    assert measurements(tmp_path) == []
