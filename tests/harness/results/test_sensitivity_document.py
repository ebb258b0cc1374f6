"""What a part can lose, and the table that says so."""

from __future__ import annotations

import math

import pytest

from harness.results.sensitivity import (
    Sensitivity,
    Trial,
    can_lose,
    lost,
    summarise_sensitivity,
)


def trials(*metrics: float | None, removed: int = 1) -> list[Trial]:
    """Return trials of the fractions 0.1, 0.2 ... with these metrics."""
    return [
        {"fraction": n / 10, "removed": removed, "weights": 0.0, "macs": 0.0, "metric": metric}
        for n, metric in enumerate(metrics, start=1)
    ]


@pytest.mark.parametrize(
    ("metric", "dense", "goal", "expected"),
    [
        (72.0, 80.0, "max", 0.1),
        (88.0, 80.0, "max", -0.1),
        (88.0, 80.0, "min", 0.1),
        (-110.0, -100.0, "max", 0.1),
        (0.0, 0.0, "max", 0.0),
        (1.0, 0.0, "min", math.inf),
        (None, 80.0, "max", math.inf),
    ],
)
def test_a_loss_is_relative_to_the_whole_network(
    metric: float | None, dense: float, goal: str, expected: float
) -> None:
    assert lost(metric, dense, goal) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ((100, 99, 99, 98), 0.3),
        ((101, 120, 100, 99), 0.4),
        ((98, 100, 100, 100), 0),
        ((100, 98, 100, 100), 0.1),  # what comes after the fall is chance
        ((100, None, 100), 0.1),
    ],
)
def test_a_part_can_lose_what_comes_before_the_fall(
    metrics: tuple[float | None, ...], expected: float
) -> None:
    assert can_lose(trials(*metrics), dense=100, goal="max", tolerance=0.01) == expected


def test_a_fraction_that_removes_nothing_does_not_count() -> None:
    none, one = trials(100, removed=0), trials(100, 100)[1:]
    assert can_lose(none, 100, "max", 0.01) == 0
    assert can_lose([*none, *one], 100, "max", 0.01) == 0.2


def test_the_table_shows_parts_metrics_and_what_was_left_whole() -> None:
    found: Sensitivity = {
        "run": "points-dense",
        "task": "points",
        "title": "Random points",
        "profile": "smoke",
        "seed": 0,
        "data": {"source": "synthetic", "name": "random points", "sha256": "0"},
        "metric": "accuracy",
        "goal": "max",
        "dense": 90.0,
        "tolerance": 0.01,
        "fractions": [0.1, 0.2],
        "scans": [
            {
                "pruner": "crop_s",
                "title": "CroP-S",
                "units": "channels",
                "criterion": "crop",
                "parts": [
                    {
                        "name": "0",
                        "size": 10,
                        "weights": 0.9,
                        "macs": 0.5,
                        "trials": [*trials(90, removed=0), *trials(90, None)[1:]],
                        "can_lose": 0.0,
                    }
                ],
                "whole": {"4": "it reaches the model's output"},
            }
        ],
    }
    assert summarise_sensitivity(found).splitlines() == [
        "points-dense",
        "  accuracy  90 on the validation data, whole network",
        "  data      SYNTHETIC: random points",
        "  can lose  the largest fraction that costs at most 1 % of it",
        "",
        "channels by crop (crop_s), from one part alone:",
        "  part  channels  of weights  of macs  10 %  20 %  can lose",
        "  0           10        90 %     50 %     -  none       0 %",
        "  left whole (it reaches the model's output)  4",
    ]
