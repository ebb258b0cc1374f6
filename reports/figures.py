"""The figures of the page as PNG and SVG; equal results give equal bytes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FixedLocator,
    MaxNLocator,
    NullLocator,
    StrMethodFormatter,
)

from harness.record import COSTS
from harness.results.intervals import Interval
from reports.drawing import (
    FAINT,
    INK,
    broken,
    frame_heat_map,
    headline,
    headline_height,
    in_style,
    save,
    size,
)
from reports.groups import Group, Section
from reports.moments import Moments
from reports.moments import draw as draw_moments
from reports.quantities import QUANTITIES
from reports.ranking import THRESHOLDS, Ranking

COLOURS = ("#0072b2", "#c44a00", "#00835f", "#b3558f", "#8a6d00", "#2b8fc9", "#5d4bb5")
"""The colours of style.css on a white background."""

MARKERS = ("o", "s", "^", "D", "v", "P")
LINES: Mapping[str, Any] = {"structured": "-", "unstructured": (0, (5, 2)), "control": ":"}

MAIN_COSTS = tuple(name for name, cost in COSTS.items() if cost.main)
"""The costs that the metric is drawn against, a panel for each."""

LEFT, GAP, PANEL = 0.66, 0.72, 2.6
"""In inches: the space left of the first panel, the gap between panels, and a panel's width."""

Looks = Mapping[str, Mapping[str, Any]]
"""Methods as `reports.charts.methods` describes them, by name."""


Drawn = Mapping[str, Mapping[str, str]]
"""File names without their suffixes: by the slug of a section or ranking, by what they show."""


def draw_all(
    sections: Sequence[Section],
    rankings: Sequence[Ranking],
    charts: Mapping[str, Mapping[str, Any]],
    methods: Sequence[Mapping[str, Any]],
    moments: Mapping[str, Moments],
    folder: Path,
) -> Drawn:
    """Write all figures for which there are data, and return their names.

    Args:
        sections: with the numbers of groups.
        rankings: across tasks.
        charts: curves and densities by section, as returned by `reports.charts.chart_data`.
        methods: colours and markers, as returned by `reports.charts.methods`.
        moments: the curves over the moment of pruning, by section.
        folder: where the files are written.
    """
    looks = {method["id"]: method for method in methods}
    drawn: dict[str, dict[str, str]] = {}
    with in_style():
        for section in (each for each in sections if each.tested):
            chart = charts[section.slug]
            for name, draw in FIGURES.items():
                if (figure := draw(section, chart, looks)) is not None:
                    save(figure, folder / f"{section.slug}-{name}")
                    drawn.setdefault(section.slug, {})[name] = f"{section.slug}-{name}"
            if section.slug in moments:
                figure = draw_moments(
                    moments[section.slug], section.metric_title, section.name, section.stamp
                )
                save(figure, folder / f"{section.slug}-moment")
                drawn.setdefault(section.slug, {})["moment"] = f"{section.slug}-moment"
        for ranking in rankings:
            save(ranking_figure(ranking, looks), folder / ranking.slug)
            drawn[ranking.slug] = {"ranking": ranking.slug}
    return drawn


def _panels(
    section: Section,
    count: int,
    title: str,
    methods: Iterable[str],
    looks: Looks,
    height: float = 2.1,
) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels, at most three in a row, and a legend next to them.

    Args:
        section: the section that is shown.
        count: the number of panels.
        title: the title of the figure.
        methods: the methods in the legend.
        looks: colours and markers of the methods.
        height: the height of a panel, in inches.
    """
    columns = min(3, count)
    rows = -(-count // columns)
    across = LEFT + columns * PANEL + (columns - 1) * GAP
    down = rows * height + (rows - 1) * 0.62
    handles = [
        Line2D([], [], label=broken(looks[m]["title"]), **_look(looks[m]))
        for m in dict.fromkeys(methods)
    ]
    lines = sum(str(handle.get_label()).count("\n") + 1 for handle in handles)
    figure = Figure(figsize=(across, down))
    legend = figure.legend(
        handles=handles,
        loc="upper right",
        fontsize=7.5,
        handlelength=2.4,
        ncols=1 + int(lines * 0.17 > max(down, 4.5)),
    )
    wide, high = size(legend, figure) if handles else (0.0, 0.0)
    figure.set_figwidth(across + wide + 0.3)
    down = max(down, high - 0.1)
    head = 0.1 + headline_height(figure, section.name, title, section.stamp)
    figure.set_figheight(down + head + 0.5)
    headline(figure, section.name, title, section.stamp)
    width, total = figure.get_size_inches()
    legend.set_bbox_to_anchor((1, 1 - (head - 0.1) / total), transform=figure.transFigure)
    panel = (down - (rows - 1) * 0.62) / rows
    axes = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    figure.subplots_adjust(
        left=LEFT / width,
        right=across / width,
        bottom=0.5 / total,
        top=1 - head / total,
        wspace=GAP / PANEL,
        hspace=0.62 / panel,
    )
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def _fitted(figure: Figure) -> Figure:
    """Widen a figure on the left if its labels need more space there."""
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]  # matplotlib has no type here
    boxes = [axes.get_tightbbox(renderer) for axes in figure.axes]
    lacking = 0.06 - min(box.x0 for box in boxes if box is not None) / figure.dpi
    if lacking > 0:
        width, margins = figure.get_figwidth(), figure.subplotpars
        wider = width + lacking
        left, right = ((x * width + lacking) / wider for x in (margins.left, margins.right))
        figure.set_figwidth(wider)
        figure.subplots_adjust(left=left, right=right)
    return figure


def _look(method: Mapping[str, Any]) -> dict[str, Any]:
    colour = FAINT if method["colour"] is None else COLOURS[method["colour"]]
    hollow = method["kind"] == "unstructured"
    return {
        "color": colour,
        "marker": MARKERS[method["marker"]],
        "markerfacecolor": "white" if hollow else colour,
        "linestyle": LINES.get(method["kind"], ":"),
        "markersize": 5,
        "linewidth": 1.3,
    }


def _name_axis(axes: Axes, key: str) -> None:
    """Label the x axis; the axis of a theoretical quantity is dashed, its label in italics."""
    quantity = QUANTITIES[key]
    theoretical = quantity.theoretical
    axes.set_xlabel(broken(quantity.title, 40), style="italic" if theoretical else "normal")
    if theoretical:
        axes.spines["bottom"].set_linestyle((0, (4, 3)))


def _pairs(section: Section, key: str) -> list[tuple[Group, float, Interval]]:
    scale = QUANTITIES[key].scale
    return [
        (group, scale * group.intervals[key].mean, group.intervals["test"])
        for group in section.groups
        if key in group.intervals and "test" in group.intervals
    ]


def front(section: Section, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the Pareto front: the points (cost, metric) that no other point dominates."""

    def beaten(point: tuple[float, float]) -> bool:
        return any(
            other != point and other[0] <= point[0] and not section.better(point[1], other[1])
            for other in points
        )

    return sorted(point for point in set(points) if not beaten(point))


def _limit(axes: Axes, intervals: Sequence[Interval]) -> None:
    """Limit the y axis: intervals may exceed the means by half of the range of the means."""
    means = [interval.mean for interval in intervals]
    if not means or min(means) == max(means):
        return
    reach = (max(means) - min(means)) / 2
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(bottom, min(means) - 1.1 * reach), min(top, max(means) + 1.1 * reach))


def _dense_line(axes: Axes, section: Section) -> None:
    test = section.dense.intervals.get("test") if section.dense else None
    if test is None:
        return
    axes.axhline(test.mean, color=FAINT, linestyle=(0, (1, 2)), linewidth=1)
    if test.low is not None and test.high is not None:
        axes.axhspan(test.low, test.high, color=FAINT, alpha=0.12, linewidth=0)


def _costs(section: Section, chart: Mapping[str, Any], looks: Looks) -> Figure | None:
    keys = [key for key in MAIN_COSTS if _pairs(section, key)]
    if not keys:
        return None
    title = f"{section.metric_title} against cost"
    shown = [group.method for key in keys for group, _, _ in _pairs(section, key)]
    ordered = [group.method for group in section.tried if group.method in shown]
    figure, panels = _panels(section, len(keys), title, ordered, looks)
    for axes, key in zip(panels, keys, strict=True):
        pairs = _pairs(section, key)
        able = [(cost, test.mean) for group, cost, test in pairs if key not in group.disturbed]
        best = front(section, able)
        if best:
            axes.step(*zip(*best, strict=True), where="post", color=INK, linewidth=0.8, alpha=0.6)
        together: dict[tuple[str, float, bool], list[tuple[float, Interval]]] = {}
        for group, cost, test in pairs:
            disturbed = key in group.disturbed
            alpha = 1.0 if disturbed or (cost, test.mean) in best else 0.3
            together.setdefault((group.method, alpha, disturbed), []).append((cost, test))
        for (method, alpha, disturbed), points in together.items():
            _scatter(axes, points, looks[method], alpha, disturbed=disturbed)
        _dense_line(axes, section)
        _limit(axes, [test for _, _, test in pairs])
        _name_axis(axes, key)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        if any(key in group.disturbed for group, _, _ in pairs):
            axes.set_xlabel(f"{axes.get_xlabel()}\n* hollow: disturbed by other programs")
    for axes in panels[::3]:
        axes.set_ylabel(broken(f"Test {section.metric_title}"))
    return _fitted(figure)


def _scatter(
    axes: Axes,
    points: Sequence[tuple[float, Interval]],
    method: Mapping[str, Any],
    alpha: float,
    *,
    disturbed: bool,
) -> None:
    """Draw points with their intervals, many at once because each artist is slow.

    Points with a disturbed cost are hollow and have an asterisk.
    """
    look = _look(method) | {"linestyle": "none", "alpha": alpha}
    if disturbed:
        look |= {"markerfacecolor": "none", "markeredgewidth": 0.7}
        for x, y in points:
            axes.annotate("*", (x, y.mean), (4, 1), textcoords="offset points", fontsize=9)
    axes.plot([x for x, _ in points], [y.mean for _, y in points], **look)
    sure = [(x, y.low, y.high) for x, y in points if y.low is not None]
    if sure:
        axes.vlines(*zip(*sure, strict=True), color=look["color"], linewidth=0.9, alpha=alpha)


def _errors(interval: Interval) -> list[list[float]] | None:
    if interval.low is None or interval.high is None:
        return None
    return [[interval.mean - interval.low], [interval.high - interval.mean]]


def _lines(
    keys: Sequence[str], title: str, fewest_sparsities: int = 1
) -> Callable[..., Figure | None]:
    """Return a function that draws the metric against quantities, a panel for each.

    Args:
        keys: the quantities; those that were not measured have no panel.
        title: the title of the figure.
        fewest_sparsities: the number of sparsities below which there is no figure.
    """

    def draw(section: Section, chart: Mapping[str, Any], looks: Looks) -> Figure | None:
        pruning = list(dict.fromkeys(g.method for g in section.tried if g.kind != "dense"))
        known = {
            key: [pair for pair in _pairs(section, key) if pair[0].method in pruning]
            for key in keys
        }
        known = {key: pairs for key, pairs in known.items() if pairs}
        if not known or len(section.sparsities) < fewest_sparsities:
            return None
        shown = {group.method for pairs in known.values() for group, _, _ in pairs}
        pruning = [method for method in pruning if method in shown]
        figure, panels = _panels(section, len(known), title, pruning, looks)
        for axes, (key, pairs) in zip(panels, known.items(), strict=True):
            for method in pruning:
                points = sorted(
                    ((x, y) for g, x, y in pairs if g.method == method), key=lambda p: p[0]
                )
                _line(axes, points, looks[method])
            _dense_line(axes, section)
            _limit(axes, [test for _, _, test in pairs])
            _name_axis(axes, key)
            if QUANTITIES[key].unit == "%":
                axes.set_xlim(right=min(axes.get_xlim()[1], 100))
            elif all(x > 0 for _, x, _ in pairs):
                _logarithmic(axes, [x for _, x, _ in pairs])
        panels[0].set_ylabel(broken(f"Test {section.metric_title}"))
        return _fitted(figure)

    return draw


def _logarithmic(axes: Axes, values: Sequence[float]) -> None:
    low, high = min(values), max(values)
    margin = max((high / low) ** 0.06, 1.05)
    axes.set_xscale("log")
    axes.set_xlim(low / margin, high * margin)
    axes.xaxis.set_major_locator(FixedLocator(_log_ticks(low / margin, high * margin)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers between two numbers, or evenly spaced ones if few are round."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if 2 < len(ticks) <= most:
            return ticks
    if high / low > 10:
        return ticks[:: -(-len(ticks) // most)]
    even = MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in even if low <= tick <= high]


def _line(axes: Axes, points: Sequence[tuple[float, Interval]], look: Mapping[str, Any]) -> None:
    xs = [x for x, _ in points]
    style = _look(look)
    # Otherwise a marker at the end of the axis would be cut.
    axes.plot(xs, [y.mean for _, y in points], **style, clip_on=False)
    sure = [(x, y.low, y.high) for x, y in points if y.low is not None and y.high is not None]
    if len(sure) > 1:
        x, low, high = zip(*sure, strict=True)
        axes.fill_between(x, low, high, color=style["color"], alpha=0.12, linewidth=0)


def _interval(triple: Sequence[Any]) -> Interval:
    """Return a mean with its ends, as the page has it."""
    mean, low, high = triple
    return Interval(mean, low, high, 1)


def _lengths(section: Section, chart: Mapping[str, Any], looks: Looks) -> Figure | None:
    """Draw the time of inference over the length of sequences, and its ratio to dense."""
    highest = max(section.sparsities, default=0.0)
    curves = [
        (group["method"], curve)
        for group, curve in zip(chart["groups"], chart["lengths"], strict=True)
        if curve is not None and group["sparsity"] in (0, highest)
    ]
    disturbed = any(disturbed for _, curve in curves for disturbed in curve["disturbed"])
    panels = {
        title: [
            (method, points)
            for method, curve in curves
            if (points := [(p[0], _interval(p[of])) for p in curve["points"] if p[of]])
        ]
        for title, of in (("Inference of a batch (ms)", 1), ("Inference of a batch, dense = 1", 2))
    }
    panels = {title: lines for title, lines in panels.items() if lines}
    if not panels:
        return None
    title = f"inference over the length of sequences{f' at {100 * highest:g} %' * bool(highest)}"
    figure, axes = _panels(section, len(panels), title, [method for method, _ in curves], looks)
    for panel, (label, lines) in zip(axes, panels.items(), strict=True):
        for method, points in lines:
            _line(panel, points, looks[method])
        _logarithmic(panel, [length for _, points in lines for length, _ in points])
        panel.set_xticks(sorted({length for _, points in lines for length, _ in points}))
        panel.set_ylim(bottom=0)
        panel.set_ylabel(label)
        remark = "\n(other programs disturbed some times)" if disturbed else ""
        panel.set_xlabel(f"Length of the sequences{remark}")
    return _fitted(figure)


def _training(section: Section, chart: Mapping[str, Any], looks: Looks) -> Figure | None:
    groups = [g for g in chart["groups"] if g["kind"] != "dense"]
    if not groups:
        return None
    sparsity = max(group["sparsity"] for group in groups)
    title = f"training at {100 * sparsity:g} %" if sparsity else "training"
    shown = {
        index: group["method"]
        for index, group in enumerate(chart["groups"])
        if group["sparsity"] in (0, sparsity)
    }
    panels = {
        label: curves
        for label, every in (
            (f"Validation {section.metric_title}", chart["curves"]),
            ("Reading of the trigger", chart["triggers"]),
        )
        if (curves := {i: every[i] for i in shown if every[i] and every[i]["points"]})
    }
    if not panels:
        return None
    drawn = {i for curves in panels.values() for i in curves}
    legend = [method for i, method in shown.items() if i in drawn]
    figure, axes = _panels(section, len(panels), title, legend, looks, height=2.5)
    for panel, (label, curves) in zip(axes, panels.items(), strict=True):
        _curves(panel, [(looks[shown[i]], curve) for i, curve in curves.items()])
        panel.set_ylabel(broken(label))
        dotted = any(curve.get("threshold") is not None for curve in curves.values())
        panel.set_xlabel(f"Epochs spent (diamonds: pruned{'; dotted: threshold' * dotted})")
    return _fitted(figure)


def _curves(axes: Axes, curves: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> None:
    """Draw curves over the epochs, starting at 0, each with the moments of its prunings."""
    logarithmic = any("threshold" in curve for _, curve in curves) and all(
        point[1] > 0 for _, curve in curves for point in curve["points"]
    )
    if logarithmic:
        axes.set_yscale("log")
    last = max(point[0] for _, curve in curves for point in curve["points"])
    axes.set_xlim(0, 1.02 * max([last, *(m for _, c in curves for m in c["pruned"])]))
    stacked: dict[float, int] = {}
    for look, curve in curves:
        points = curve["points"]
        style = _look(look) | {"marker": "none"}
        xs = [point[0] for point in points]
        axes.plot(xs, [point[1] for point in points], **style)
        lows, highs = [p[2] for p in points], [p[3] for p in points]
        axes.fill_between(xs, lows, highs, color=style["color"], alpha=0.1, lw=0)
        threshold = curve.get("threshold")
        if threshold is not None and (threshold > 0 or not logarithmic):
            axes.axhline(threshold, color=style["color"], linestyle=":", linewidth=1)
        diamond = {"marker": "D", "color": style["color"], "markeredgecolor": INK}
        diamond |= {"markersize": 4, "clip_on": False, "zorder": 3}
        for moment in curve["pruned"]:
            height = height_at(points, moment, logarithmic=logarithmic)
            if height is not None:
                axes.plot([moment], [height], **diamond)
                continue
            # There is no curve yet: the diamonds stand on the axis, one above the other.
            level = stacked[moment] = stacked.get(moment, -1) + 1
            place = axes.get_xaxis_transform()
            axes.plot([moment], [0.025 + 0.045 * level], transform=place, **diamond)


def height_at(
    points: Sequence[Sequence[float]], at: float, *, logarithmic: bool = False
) -> float | None:
    """Return the height of a curve between its points; None outside its ends.

    Args:
        points: (x, y, ...), ordered by x.
        at: the x at which the height is wanted.
        logarithmic: whether the y axis is.
    """
    if not points or not points[0][0] <= at <= points[-1][0]:
        return None
    of, back = (math.log, math.exp) if logarithmic else (float, float)
    for (x0, y0, *_), (x1, y1, *_) in itertools.pairwise(points):
        if x0 <= at <= x1:
            share = (at - x0) / (x1 - x0) if x1 > x0 else 1.0
            return back(of(y0) + share * (of(y1) - of(y0)))
    return points[-1][1]


def _named(group: Mapping[str, Any], looks: Looks) -> str:
    title = str(looks[group["method"]]["title"])
    return f"{title} at {100 * group['sparsity']:g} %" if group["sparsity"] else title


def _density(section: Section, chart: Mapping[str, Any], looks: Looks) -> Figure | None:
    kinds: Sequence[str] = chart["kinds"]
    rows: list[tuple[str, Sequence[float]]] = [
        (broken(_named(g, looks)), [*shares, *left])
        for g, shares, left in zip(chart["groups"], chart["densities"], chart["left"], strict=True)
        if g["kind"] != "dense" and shares
    ]
    if not rows:
        return None
    layers = max(len(shares) for _, shares in rows)
    lines = sum(name.count("\n") + 1 for name, _ in rows)
    wide, down = max(0.16 * layers, 3.2), max(0.19 * lines, 0.19 * len(rows))
    figure = Figure(figsize=(wide, down))
    axes = figure.add_axes((0, 0, 1, 1))
    # An empty layer has no logarithm: its cell stays white, with a cross.
    image = axes.imshow(
        [
            [share or math.nan for share in shares] + [math.nan] * (layers - len(shares))
            for _, shares in rows
        ],
        norm=matplotlib.colors.LogNorm(1e-4, 1),
        cmap="Blues",
        aspect="auto",
        interpolation="nearest",
    )
    for row, (_, shares) in enumerate(rows):
        for layer, share in enumerate(shares):
            if not share:
                axes.plot(layer, row, "x", color="#a8360b", markersize=5)
    first = layers - len(kinds)
    shown = range(0, first, -(-first // 20))
    letters = ascii_uppercase[: len(kinds)]
    axes.set_xticks([*shown, *range(first, layers)], [*(str(n + 1) for n in shown), *letters])
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=7)
    axes.set_xlabel("Layer, from input to output\n(cross: empty)")
    named = ", ".join(f"{letter}: {kind}" for letter, kind in zip(letters, kinds, strict=True))
    title = f"{DENSITY}, and channels left of each kind ({named})" if kinds else DENSITY
    frame_heat_map(figure, image, section.name, title, section.stamp)
    return figure


DENSITY = "weights left in each layer"


def ranking_figure(ranking: Ranking, looks: Looks) -> Figure:
    """Return the scores of methods with their intervals, and their performance profiles."""
    rows = len(ranking.ranked)
    names = [broken(row.title) for row in reversed(ranking.ranked)]
    lines = max(name.count("\n") + 1 for name in names)
    down = max(1.8, 0.24 * rows * max(1, 0.6 * lines))
    figure = Figure(figsize=(9, down))
    left, right = figure.subplots(1, 2)
    for place, row in enumerate(reversed(ranking.ranked)):
        look = _look(looks[row.method])
        errors = _errors(row.score)
        left.errorbar(
            row.score.mean, place, xerr=errors, elinewidth=1.2, **(look | {"linestyle": "none"})
        )
        every = (len(THRESHOLDS) * place // (4 * rows), len(THRESHOLDS) // 4)
        right.plot(THRESHOLDS, row.profile, **look, markevery=every)
    left.set_yticks(range(rows), names)
    left.set_xlabel("Mean of normalised scores")
    left.xaxis.set_major_locator(MaxNLocator(5))
    right.set_xlabel("Normalised score")
    right.set_ylabel("Share of runs above")
    margin = 0.2 + max(size(label, figure)[0] for label in left.get_yticklabels())
    figure.set_figwidth(margin + 7.8)
    warning = "TOO FEW SEEDS" if ranking.too_few else ""
    stamp = "; ".join(filter(None, (warning, ranking.stamp)))
    head = 0.1 + headline_height(figure, ranking.title, "Across tasks", stamp)
    height = down + head + 0.5
    figure.set_figheight(height)
    headline(figure, ranking.title, "Across tasks", stamp)
    figure.subplots_adjust(
        left=margin / (margin + 7.8),
        right=1 - 0.2 / (margin + 7.8),
        bottom=0.5 / height,
        top=1 - head / height,
        wspace=0.22,
    )
    return figure


FIGURES: Mapping[str, Callable[[Section, Mapping[str, Any], Looks], Figure | None]] = {
    "costs": _costs,
    "sparsity": _lines(
        ("weight_sparsity", "compression"), "against sparsity and compression", fewest_sparsities=2
    ),
    "equal": _lines(
        ("macs_effective", "macs", "disk_bytes"), "structured and unstructured at equal cost"
    ),
    "training": _training,
    "lengths": _lengths,
    "density": _density,
}
