"""The test metric against the moment of pruning, and the moments that triggers would have chosen.

This is drawn if a results folder holds runs of methods that prune at a fixed moment (an option
``moment``) and dense runs whose triggers were observed. All methods train the same network until
the first pruning, so one dense run of a seed serves all triggers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.record import Number
from harness.results.intervals import Interval, mean_interval
from reports.results import Run

Threshold = Callable[[str, float], float]
"""Returns the value below which a trigger fires, from the units and the weight sparsity."""


def lazy_threshold(units: str, sparsity: float) -> float:
    """Return EarlyCroP's threshold: the share of weights, or of nodes, that remain."""
    return 1 - sparsity if units == "weights" else math.sqrt(1 - sparsity)


@dataclass(frozen=True)
class Observed:
    """A trigger whose readings are in the record of an observed dense run.

    Attributes:
        title: its name.
        key: the name under which its readings are recorded.
        threshold: returns the value below which it fires.
        units: the units that it is for; None for all.
    """

    title: str
    key: str
    threshold: Threshold
    units: str | None = None


TRIGGERS = (
    Observed("lazy regime", "lazy_regime", lazy_threshold),
    Observed("not squared", "lazy_regime_not_squared", lazy_threshold),
    Observed("official code", "lazy_regime_official", lazy_threshold),
    Observed("EarlyBird, magnitudes", "mask_distance_u", lambda units, sparsity: 0.1, "weights"),
    Observed("EarlyBird, scales", "mask_distance_s", lambda units, sparsity: 0.1, "channels"),
    Observed("kernel below 10 %", "kernel", lambda units, sparsity: 0.10),
    Observed("kernel below 5 %", "kernel", lambda units, sparsity: 0.05),
)


@dataclass(frozen=True)
class Curve:
    """The test metric by the epoch after which a method pruned.

    Attributes:
        units: "weights" or "channels".
        sparsity: of the weights.
        one_shot: whether everything was removed at once.
        points: the mean with its interval over the seeds, and the value of each seed, by epoch.
    """

    units: str
    sparsity: float
    one_shot: bool
    points: Mapping[float, tuple[Interval, Sequence[float]]]

    @property
    def title(self) -> str:
        """How it prunes."""
        return "in one shot" if self.one_shot else "in steps"


@dataclass(frozen=True)
class Firing:
    """The epochs after which a trigger fires, by seed; None if it never fires."""

    title: str
    threshold: float
    epochs: Mapping[int, float | None]


@dataclass(frozen=True)
class Moments:
    """The curves of a task, and the moments that triggers would have chosen."""

    curves: Sequence[Curve]
    dense: Interval | None
    epochs: float
    firings: Mapping[tuple[str, float], Sequence[Firing]]
    """By units and sparsity."""


def moments(runs: Iterable[Run]) -> Moments | None:
    """Return the moments of one task; None if no run prunes at a fixed moment.

    Args:
        runs: those of one task in one setting.
    """
    tested = [(run, float(test)) for run in runs if (test := run.metrics["test"]) is not None]
    curves = _curves((run, test) for run, test in tested if run.fixed_moment)
    if not curves:
        return None
    dense = [test for run, test in tested if run.kind == "dense"]
    observed = [run for run, _ in tested if "lazy_regime" in run.readings]
    return Moments(
        curves=curves,
        dense=mean_interval(dense) if dense else None,
        epochs=max(float(run.quantities["epochs"] or 0) for run, _ in tested),
        firings={
            (units, sparsity): [
                Firing(
                    trigger.title,
                    trigger.threshold(units, sparsity),
                    {
                        run.seed: fires_after(
                            run.readings.get(trigger.key, {}), trigger.threshold(units, sparsity)
                        )
                        for run in observed
                    },
                )
                for trigger in TRIGGERS
                if trigger.units in (None, units)
                and any(trigger.key in run.readings for run in observed)
            ]
            for units, sparsity in sorted({(c.units, c.sparsity) for c in curves})
        },
    )


def _curves(tested: Iterable[tuple[Run, float]]) -> list[Curve]:
    """Return the curves of runs, each with its test metric."""
    tests: dict[tuple[str, float, bool], dict[float, list[float]]] = {}
    for run, test in tested:
        key = run.fixed_moment, run.sparsity, run.one_shot
        tests.setdefault(key, {}).setdefault(run.pruned_after[0], []).append(test)
    return [
        Curve(*key, {at: (mean_interval(values[at]), values[at]) for at in sorted(values)})
        for key, values in sorted(tests.items())
    ]


def fires_after(readings: Mapping[float, Number | None], threshold: float) -> float | None:
    """Return the first epoch, from the second on, with a reading below the threshold, if any."""
    return next(
        (
            epoch
            for number, (epoch, value) in enumerate(readings.items(), start=1)
            if number > 1 and value is not None and value < threshold
        ),
        None,
    )


COLOURS: Mapping[bool, str] = {False: "#0072b2", True: "#c44a00"}
MARKERS: Mapping[bool, str] = {False: "o", True: "s"}


def draw(found: Moments, metric: str, name: str, stamp: str | None) -> Figure:
    """Draw the curves and, below them, a row for each trigger with a diamond for each seed.

    Args:
        found: the curves and triggers.
        metric: the name of the test metric.
        name: the name of the task and its setting.
        stamp: a warning if the data are not the published ones.
    """
    kinds = list(found.firings)
    rows = max((len(firings) for firings in found.firings.values()), default=0)
    figure = Figure(figsize=(4.6 * len(kinds) + 0.6, 3.0 + 0.24 * rows), layout="constrained")
    figure.suptitle("\n".join(filter(None, (f"When to prune: {name}", stamp))), fontsize=9)
    ratios = [3.0, max(0.24 * rows, 0.01)]
    axes = figure.subplots(
        2, len(kinds), squeeze=False, sharex="col", gridspec_kw={"height_ratios": ratios}
    )
    for panel in axes.flat:
        panel.axvline(found.epochs / 2, color="#c9ced2", linewidth=0.9, zorder=0)
    for column, (units, sparsity) in enumerate(kinds):
        own = [c for c in found.curves if (c.units, c.sparsity) == (units, sparsity)]
        _draw_curves(axes[0, column], own, found.dense)
        axes[0, column].set_title(f"{100 * sparsity:g} % of the weights, by {units}", fontsize=9)
        _draw_firings(axes[1, column], found.firings[units, sparsity], found.epochs)
        axes[1, column].set_xlabel("epoch after which the network is pruned")
    axes[0, 0].set_ylabel(f"test {metric}")
    height = axes[0, 0].get_xaxis_transform()
    axes[0, 0].text(0.505 * found.epochs, 0.02, "EarlyCroP's cap", fontsize=7, transform=height)
    axes[0, 0].legend(fontsize=8, loc="best")
    return figure


def _draw_curves(axes: Axes, curves: Sequence[Curve], dense: Interval | None) -> None:
    if dense is not None:
        axes.axhline(dense.mean, color="#5d656e", linestyle=":", label="dense")
    for curve in curves:
        epochs = list(curve.points)
        means = [interval.mean for interval, _ in curve.points.values()]
        colour, marker = COLOURS[curve.one_shot], MARKERS[curve.one_shot]
        axes.plot(epochs, means, marker=marker, color=colour, label=curve.title)
        for epoch, (_, values) in curve.points.items():
            axes.plot([epoch] * len(values), values, marker, color=colour, alpha=0.35, markersize=3)


def _draw_firings(axes: Axes, firings: Sequence[Firing], epochs: float) -> None:
    axes.set_xlim(-0.03 * epochs, 1.03 * epochs)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(max(len(firings), 1) - 0.5, -0.5)
    axes.set_yticks(range(len(firings)), [f"{f.title} (< {f.threshold:.3g})" for f in firings])
    axes.tick_params(axis="y", labelsize=7, length=0)
    for row, firing in enumerate(firings):
        fired = [epoch for epoch in firing.epochs.values() if epoch is not None]
        axes.plot(fired, [row] * len(fired), "D", color="#00835f", markersize=5, alpha=0.6)
        if missing := len(firing.epochs) - len(fired):
            beside = axes.get_yaxis_transform()
            axes.text(1.01, row, f"never: {missing}", fontsize=7, va="center", transform=beside)
    axes.grid(axis="x", color="#e3e6e8")
