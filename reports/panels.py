"""The panels of figures, and what is drawn in them: methods, intervals, axes, the dense line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

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

from harness.results.intervals import Interval
from reports.drawing import FAINT, broken, headline, headline_height, size
from reports.groups import Section
from reports.quantities import QUANTITIES

COLOURS = ("#0072b2", "#c44a00", "#00835f", "#b3558f", "#8a6d00", "#2b8fc9", "#5d4bb5")
"""The colours of style.css on a white background."""

MARKERS = ("o", "s", "^", "D", "v", "P")
LINES: Mapping[str, Any] = {"structured": "-", "unstructured": (0, (5, 2)), "control": ":"}

LEFT, GAP, PANEL = 0.66, 0.72, 2.6
"""In inches: the space left of the first panel, the gap between panels, and a panel's width."""

Looks = Mapping[str, Mapping[str, Any]]
"""Methods as `reports.charts.methods` describes them, by name."""


def with_panels(
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
        Line2D([], [], label=broken(looks[m]["title"]), **look_of(looks[m]))
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


def fitted(figure: Figure) -> Figure:
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


def look_of(method: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a line of matplotlib for a method of `reports.charts.methods`."""
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


def name_axis(axes: Axes, key: str) -> None:
    """Label the x axis; the axis of a theoretical quantity is dashed, its label in italics."""
    quantity = QUANTITIES[key]
    theoretical = quantity.theoretical
    axes.set_xlabel(broken(quantity.title, 40), style="italic" if theoretical else "normal")
    if theoretical:
        axes.spines["bottom"].set_linestyle((0, (4, 3)))


def limit_height(axes: Axes, intervals: Sequence[Interval]) -> None:
    """Limit the y axis: intervals may exceed the means by half of the range of the means."""
    means = [interval.mean for interval in intervals]
    if not means or min(means) == max(means):
        return
    reach = (max(means) - min(means)) / 2
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(bottom, min(means) - 1.1 * reach), min(top, max(means) + 1.1 * reach))


def draw_dense_line(axes: Axes, section: Section) -> None:
    """Draw the metric of the dense network across the panel, with its interval."""
    test = section.dense.intervals.get("test") if section.dense else None
    if test is None:
        return
    axes.axhline(test.mean, color=FAINT, linestyle=(0, (1, 2)), linewidth=1)
    if test.low is not None and test.high is not None:
        axes.axhspan(test.low, test.high, color=FAINT, alpha=0.12, linewidth=0)


def error_bar(interval: Interval) -> list[list[float]] | None:
    """Return how far an interval reaches below and above its mean; None if it has no ends."""
    if interval.low is None or interval.high is None:
        return None
    return [[interval.mean - interval.low], [interval.high - interval.mean]]


def make_logarithmic(axes: Axes, values: Sequence[float]) -> None:
    """Make the x axis logarithmic, around values greater than 0."""
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


def draw_line(
    axes: Axes, points: Sequence[tuple[float, Interval]], method: Mapping[str, Any]
) -> None:
    """Draw the means of a method against x, with a band for their intervals."""
    xs = [x for x, _ in points]
    style = look_of(method)
    # Otherwise a marker at the end of the axis would be cut.
    axes.plot(xs, [y.mean for _, y in points], **style, clip_on=False)
    sure = [(x, y.low, y.high) for x, y in points if y.low is not None and y.high is not None]
    if len(sure) > 1:
        x, low, high = zip(*sure, strict=True)
        axes.fill_between(x, low, high, color=style["color"], alpha=0.12, linewidth=0)


def interval_of(triple: Sequence[Any]) -> Interval:
    """Return a mean with its ends, as the page has it."""
    mean, low, high = triple
    return Interval(mean, low, high, 1)
