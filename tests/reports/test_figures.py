"""Figures as PNG and SVG: what they show, and that nothing of it is cut."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from reports.charts import chart_data, methods
from reports.drawing import STYLE
from reports.figures import FIGURES, draw_all, height_at, ranking_figure
from reports.groups import Section, sections
from reports.lengths import over_lengths
from reports.ranking import rankings
from reports.results import read
from tests.helpers.fabricated import record, save, suite

LONG = "A method with a name of sixty letters and then some more words"
METRIC = "root_mean_squared_error_of_the_depth_in_metres"
UNBROKEN = "criterion_of_" + "x" * 47


def drawn(folder: Path, records: Sequence[dict[str, Any]]) -> dict[str, Figure | None]:
    """Return the figures of the only section of these records, and of its ranking."""
    results = read(save(folder, records))
    (section,) = sections(results)
    looks = {method["id"]: method for method in methods([section])}
    chart = chart_data(section, results, over_lengths(section, results))
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE, "backend": "agg"}):
        found = {name: draw(section, chart, looks) for name, draw in FIGURES.items()}
        for ranking in rankings([section]):
            found["ranking"] = ranking_figure(ranking, looks)
        for figure in (figure for figure in found.values() if figure is not None):
            FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    return found


def training(*moments: float, pruner: str = "snip", **changes: Any) -> Any:
    """Return the record of a run with an epoch of ten steps, pruned after so many epochs."""
    events: list[dict[str, Any]] = [
        {
            "verb": "train",
            "position": 40,
            "spent": 40,
            "ended_by": "plan",
            "epochs": [
                {"position": s, "spent": s, "loss": 1.0, "validation": {"accuracy": float(a)}}
                for s, a in ((10, 50), (20, 70), (30, 80), (40, 84))
            ],
        }
    ]
    events += [
        {
            "verb": "prune",
            "position": round(10 * m),
            "spent": round(10 * m),
            "units": "weights",
            "target": 0.98,
        }
        for m in moments
    ]
    return record("pictures", pruner, events=events, cost__epochs=4.0, cost__steps=40, **changes)


@pytest.mark.parametrize(
    ("at", "height"), [(1, 50), (1.5, 60), (2, 70), (3.25, 81), (0.5, None), (4.5, None)]
)
def test_a_height_is_that_of_the_drawn_curve(at: float, height: float | None) -> None:
    assert height_at([(1, 50), (2, 70), (3, 80), (4, 84)], at) == height


def test_a_height_on_a_logarithmic_axis_is_that_of_the_drawn_curve() -> None:
    found = height_at([(1, 1.0), (3, 0.01)], 2, logarithmic=True)
    assert found is not None
    assert math.isclose(found, 0.1)


def test_prunings_are_at_their_own_moments_and_the_axis_begins_at_zero(tmp_path: Path) -> None:
    figure = drawn(tmp_path, [training(0.5, 1.5, 3)])["training"]
    assert figure is not None
    (axes,) = figure.axes
    assert axes.get_xlim()[0] == 0
    diamonds = [line for line in axes.lines if line.get_marker() == "D"]
    on_axis, *on_curve = (tuple(np.asarray(line.get_xydata())[0]) for line in diamonds)
    assert on_curve == [(1.5, 60.0), (3.0, 80.0)]
    assert on_axis[0] == 0.5
    assert diamonds[0].get_transform() != diamonds[1].get_transform()


def test_there_is_no_panel_for_a_trigger_that_nobody_has(tmp_path: Path) -> None:
    assert [
        a.get_ylabel() for a in figure_axes(drawn(tmp_path / "a", [training(0)]), "training")
    ] == ["Validation accuracy"]
    early = drawn(tmp_path / "b", [record(pruner="earlycrop_u")])
    assert [a.get_ylabel() for a in figure_axes(early, "training")] == [
        "Validation accuracy",
        "Reading of the trigger",
    ]


def figure_axes(figures: dict[str, Figure | None], name: str) -> list[Any]:
    figure = figures[name]
    assert figure is not None
    return figure.axes


def test_every_panel_shows_something(tmp_path: Path) -> None:
    """Without a size on disk there is no panel for it."""
    lengths = {"8": {"inference_ms": 1.0}, "16": {"inference_ms": 2.0}}
    runs = [
        record(pruner=pruner, sparsity=sparsity, cost__disk_bytes=None, cost__by_length=lengths)
        for pruner in ("dense", "snip", "crop_s")
        for sparsity in ((0.9, 0.98) if pruner != "dense" else (0.0,))
    ]
    for name, figure in drawn(tmp_path, runs).items():
        assert figure is not None, name
        for axes in figure.axes:
            assert axes.has_data(), name


def test_one_sparsity_makes_no_figure_over_sparsities(tmp_path: Path) -> None:
    one = suite(("pictures",), ("dense", "snip", "crop_s"), (0.98,), (0,))
    assert drawn(tmp_path / "one", one)["sparsity"] is None
    two = drawn(tmp_path / "two", suite(("pictures",), ("dense", "snip"), (0.9, 0.98), (0,)))
    over = figure_axes(two, "sparsity")[0]
    assert over.get_xlabel() == "Weight sparsity (%)"
    assert over.get_xlim()[1] <= 100


@pytest.mark.parametrize("title", [LONG, UNBROKEN, "A $x$ of\nlines"])
def test_no_label_is_cut_or_reaches_into_another_panel(tmp_path: Path, title: str) -> None:
    runs = [
        record(
            "shapes",
            pruner,
            sparsity,
            pruner__title=f"{title} {number}",
            task__title=title,
            data__source="synthetic",
            data__name=title,
            quality__metric=METRIC,
            cost__by_length={"8": {"inference_ms": 1.0}, "16": {"inference_ms": 2.0}},
        )
        for number, pruner in enumerate(("dense", *(f"early{n}" for n in range(30))))
        for sparsity in ((0.9, 0.98) if pruner != "dense" else (0.0,))
    ]
    for event in (event for run in runs for event in run["events"]):
        for epoch in event.get("epochs", ()):
            epoch["validation"] = {METRIC: epoch["loss"]}
    for name, figure in drawn(tmp_path, runs).items():
        assert figure is not None
        whole = figure.bbox
        for text in figure.findobj(Text):
            # Ticks beyond the ends of an axis have labels that are not drawn.
            if re.search("[a-z]{3}", text.get_text().replace("mathdefault", "")):
                box = text.get_window_extent()
                inside = box.x0 >= -1 and box.y0 >= -1
                inside &= box.x1 <= whole.x1 + 1 and box.y1 <= whole.y1 + 1
                assert inside, (name, text.get_text())
        for legend in figure.legends:
            box = legend.get_window_extent()
            assert not any(box.overlaps(axes.bbox) for axes in figure.axes), name


def test_the_density_figure_has_a_column_for_each_kind_of_channels(tmp_path: Path) -> None:
    groups = [
        {"name": "a", "kind": "attention heads", "channels": 8, "kept": kept} for kept in (2, 4)
    ]
    groups.append({"name": "b", "kind": "head width", "channels": 16, "kept": 4})
    made = record(pruner="crop_s", sparsity__per_group=groups)
    results = read(save(tmp_path, [made, record(pruner="snip"), record(pruner="dense")]))
    (section,) = sections(results)
    chart = chart_data(section, results, over_lengths(section, results))
    assert chart["kinds"] == ["attention heads", "head width"]
    left = dict(zip((g["method"] for g in chart["groups"]), chart["left"], strict=True))
    assert left == {"crop_s": [6 / 16, 4 / 16], "snip": [], "dense": []}
    figure = FIGURES["density"](section, chart, {m["id"]: m for m in methods([section])})
    assert figure is not None
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels[-2:] == ["A", "B"]
    assert any("A: attention heads, B: head width" in text.get_text() for text in figure.texts)


def odd_records() -> dict[str, list[dict[str, Any]]]:
    """Return records on which axes have no extent, or titles no glyphs."""
    same: dict[str, Any] = {
        "cost__macs": 5,
        "cost__macs_effective": 5,
        "cost__disk_bytes": 5,
        "quality__test": 9.0,
    }
    nothing: dict[str, Any] = dict.fromkeys(same, 0)
    return {
        "one run": [record()],
        "only dense": [record(pruner="dense")],
        "all equal": [record(pruner=p, seed=s, **same) for p in ("snip", "dense") for s in (0, 1)],
        "all zero": [record(pruner=p, sparsity=x, **nothing) for p in "ab" for x in (0.5, 0.6)],
        "nearly equal": [
            record(pruner=p, sparsity=x, cost__macs=m, quality__test=90 + m * 1e-14)
            for m, (p, x) in enumerate((("snip", 0.9), ("snip", 0.98), ("ltr", 0.9)), 1)
        ],
        "no glyphs": [record(pruner=p, pruner__title="方法 \x07") for p in ("dense", "snip")],
        "one layer": [record(sparsity__per_layer=record()["sparsity"]["per_layer"][:1])],
        "empty layers": [
            record(sparsity__per_layer=[{"name": "a", "shape": [2], "weights": 2, "kept": 0}])
        ],
        "no layers": [record(sparsity__per_layer=[]), record(pruner="dense")],
        "one epoch": [training(0, 4), training(2, pruner="ltr")],
        "one length": [record(cost__by_length={"1": {"inference_ms": 1.0}})],
        "never trained": [record(events=[], cost__steps=0, cost__epochs=0.0)],
    }


@pytest.mark.parametrize("name", odd_records())
def test_no_figure_warns(tmp_path: Path, name: str) -> None:
    results = read(save(tmp_path, odd_records()[name]))
    made: list[Section] = sections(results)
    (tmp_path / "figures").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_all(
            made,
            rankings(made),
            {
                section.slug: chart_data(section, results, over_lengths(section, results))
                for section in made
            },
            methods(made),
            {},
            tmp_path / "figures",
        )


def test_a_disturbed_cost_is_a_hollow_point_with_an_asterisk_and_on_no_front(
    tmp_path: Path,
) -> None:
    fast: dict[str, Any] = {
        "cost__disturbed": {"step_ms": 0.3},
        "cost__step_ms": 0.1,
        "quality__test": 99.0,
    }
    figures = drawn(tmp_path, [record(pruner="crop_s", **fast), record(pruner="dense")])
    (axes,) = (a for a in figure_axes(figures, "costs") if "Training step" in a.get_xlabel())
    assert "* hollow: disturbed by other programs" in axes.get_xlabel()
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert [list(line.get_xdata()) for line in hollow] == [[0.1]]
    assert [text.get_text() for text in axes.texts] == ["*"]
    fronts = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    assert all(0.1 not in line.get_xdata() for line in fronts)
