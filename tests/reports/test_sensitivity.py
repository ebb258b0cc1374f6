"""Heat maps of what each part of a network can lose."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harness.results.sensitivity import Sensitivity
from reports.drawing import STYLE
from reports.sensitivity import LIMIT, heat_map, stamp, write


def part(name: str, metrics: list[float | None], can_lose: float) -> Any:
    trials = [
        {"fraction": n / 10, "removed": int(metric != 90), "metric": metric}
        for n, metric in enumerate(metrics, start=1)
    ]
    return {"name": name, "size": 1000, "trials": trials, "can_lose": can_lose}


FOUND: Sensitivity = {
    "run": "points-dense",
    "task": "points",
    "title": "Random points",
    "profile": "smoke",
    "seed": 0,
    "data": {"source": "synthetic", "name": "random points", "sha256": "0"},
    "metric": "top1_accuracy",
    "goal": "max",
    "dense": 90.0,
    "tolerance": 0.01,
    "fractions": [0.1, 0.2, 0.3],
    "scans": [
        {
            "pruner": "crop_s",
            "title": "CroP-S",
            "units": "channels",
            "criterion": "crop",
            "parts": [
                part("first", [90.0, 89.5, 45.0], 0.2),
                part("a_layer_whose_name_is_longer_than_thirty_letters", [99.0, 0.0, None], 0.1),
            ],
            "whole": {},
        }
    ],
}


@pytest.fixture
def figure() -> Figure:
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE, "backend": "agg"}):
        drawn = heat_map(FOUND["scans"][0], FOUND)
        FigureCanvasAgg(drawn).draw()  # type: ignore[no-untyped-call]
    return drawn


def test_the_colour_is_the_loss_of_the_metric(figure: Figure) -> None:
    shown = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_allclose(shown, np.array([[0, 0.5 / 90, 0.5], [0, 1, 1]]))


def test_the_numbers_are_the_metric_or_a_word_for_what_has_none(figure: Figure) -> None:
    numbers = [text.get_text() for text in figure.axes[0].texts]
    assert numbers == ["-", "89.5", "45", "99", "0", "none"]


def test_a_line_stands_behind_what_a_part_can_lose(figure: Figure) -> None:
    lines = [line for line in figure.axes[0].lines if line.get_color() == LIMIT]
    assert [list(np.asarray(line.get_xdata())) for line in lines] == [[1.5, 1.5], [0.5, 0.5]]


def test_nothing_is_cut(figure: Figure) -> None:
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    labels = [*figure.axes[0].get_yticklabels(), *figure.axes[1].get_yticklabels(), *figure.texts]
    for label in labels:
        box = label.get_window_extent(renderer)
        assert box.x0 >= 0, label
        assert box.x1 <= figure.bbox.x1, label


def test_stand_in_data_are_stamped() -> None:
    assert stamp(FOUND) == "SYNTHETIC DATA: random points"
    own = copy.deepcopy(FOUND)
    own["data"] = {"source": "real", "name": "leaves", "sha256": "0", "stands_in_for": None}
    assert stamp(own) is None
    own["data"]["stands_in_for"] = "ImageNet"
    assert stamp(own) == "STAND-IN DATA: leaves"


def test_equal_documents_give_equal_files(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
        write(FOUND, folder)
    first, second = (
        {path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders
    )
    assert first == second
    assert set(first) == {
        "sensitivity.json",
        "sensitivity-crop_s.png",
        "sensitivity-crop_s.svg",
    }
