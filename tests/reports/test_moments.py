"""The moment of pruning, on records with known numbers."""

from __future__ import annotations

from typing import Any

import pytest

from reports.moments import draw, fires_after, moments
from reports.results import run_of
from tests.helpers.records import record


def run(pruner: str, seed: int, test: float, **changes: Any) -> Any:
    return record(
        spec__pruner=pruner,
        spec__seed=seed,
        pruner__group="dense" if pruner == "dense" else "control",
        quality__test=test,
        cost__epochs=10,
        cost__steps=50,
        **{"events": [], **changes},
    )


def pruned(units: str, epoch: int, seed: int, test: float, steps: int = 5) -> Any:
    return run(
        "earlycrop_fixed",
        seed,
        test,
        spec__sparsity=0.96,
        settings={"moment": epoch / 10, "steps": steps},
        events=[
            {"verb": "train", "spent": 5 * epoch, "ended_by": "plan", "epochs": []},
            {"verb": "prune", "spent": 5 * epoch, "units": units},
        ],
    )


def observed(seed: int, lazy: list[float], kernel: list[float]) -> Any:
    epochs = [
        {"spent": 5 * n, "observed": {"lazy_regime": a}, "kernel": {"epoch_change": b}}
        for n, (a, b) in enumerate(zip(lazy, kernel, strict=True), start=1)
    ]
    return run(
        "observed", seed, 98.0, events=[{"verb": "train", "ended_by": "plan", "epochs": epochs}]
    )


RUNS = [
    run_of(each)
    for each in (
        run("dense", 0, 98.0),
        run("dense", 1, 99.0),
        *(pruned("channels", 2, seed, test) for seed, test in enumerate((97.0, 98.0))),
        *(pruned("channels", 5, seed, test) for seed, test in enumerate((90.0, 94.0))),
        *(pruned("channels", 2, seed, 60.0, steps=0) for seed in range(2)),
        *(pruned("weights", 2, seed, 96.0) for seed in range(2)),
        observed(0, [1.0, 0.3, 0.19, 0.03], [0.9, 0.5, 0.08, 0.04]),
        observed(1, [1.0, 0.3, 0.25, 0.22], [0.9, 0.5, 0.2, 0.2]),
    )
]


def test_a_curve_is_the_mean_over_the_seeds_by_the_epoch_of_pruning() -> None:
    found = moments(RUNS)
    assert found is not None
    assert found.dense is not None
    assert found.dense.mean == 98.5
    curves = {(c.units, c.one_shot): c for c in found.curves}
    in_steps = curves["channels", False]
    assert {epoch: point[0].mean for epoch, point in in_steps.points.items()} == {2: 97.5, 5: 92}
    assert curves["channels", True].points[2][0].mean == 60


def test_the_threshold_of_channels_is_in_terms_of_nodes() -> None:
    # 96 % of the weights: 1 - 0.96 = 0.04 of the weights, sqrt(0.04) = 0.2 of the nodes stay.
    found = moments(RUNS)
    assert found is not None
    lazy = {units: firings[0] for (units, _), firings in found.firings.items()}
    assert lazy["weights"].threshold == pytest.approx(0.04)
    assert lazy["channels"].threshold == pytest.approx(0.2)
    assert lazy["weights"].epochs == {0: 4, 1: None}
    assert lazy["channels"].epochs == {0: 3, 1: None}


def test_the_kernel_fires_when_an_epoch_changes_it_little() -> None:
    found = moments(RUNS)
    assert found is not None
    kernel = {f.title: f.epochs for f in found.firings["weights", 0.96] if "kernel" in f.title}
    assert kernel == {
        "kernel below 10 %": {0: 3, 1: None},
        "kernel below 5 %": {0: 4, 1: None},
    }


@pytest.mark.parametrize(
    ("readings", "epoch"),
    [
        ({1: 0.1, 2: 0.5, 3: 0.1}, 3),  # the first epoch never fires
        ({1: None, 2: 1.0, 3: 0.1}, 3),
        ({1: 1.0, 2: None}, None),
        ({}, None),
    ],
)
def test_a_trigger_fires_at_the_first_reading_below_its_threshold(
    readings: dict[float, float | None], epoch: float | None
) -> None:
    assert fires_after(readings, 0.2) == epoch


def test_the_figure_has_a_panel_for_each_kind_of_units() -> None:
    found = moments(RUNS)
    assert found is not None
    figure = draw(found, "accuracy", "digits", "STAND-IN DATA")
    assert figure.get_suptitle() == "When to prune: digits\nSTAND-IN DATA"
    titles = [axes.get_title() for axes in figure.axes[:2]]
    assert titles == ["96 % of the weights, by channels", "96 % of the weights, by weights"]


def test_the_figure_needs_no_observed_triggers() -> None:
    found = moments(run for run in RUNS if not run.readings)
    assert found is not None
    assert draw(found, "accuracy", "digits", None).axes[2].get_yticklabels() == []


def test_without_fixed_moments_there_is_nothing_to_draw() -> None:
    assert moments(RUNS[:2]) is None
