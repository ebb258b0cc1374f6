"""The page's figures as PNG and SVG, for papers and slides: the same results, the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from harness.results.intervals import Interval
from reports.groups import Group, Section
from reports.quantities import QUANTITIES
from reports.ranking import THRESHOLDS, Ranking

COLOURS = ("#0072b2", "#c44a00", "#00835f", "#b3558f", "#8a6d00", "#2b8fc9", "#5d4bb5")
"""Those of style.css on white paper."""

MARKERS = ("o", "s", "^", "D", "v", "P")
LINES: Mapping[str, Any] = {"structured": "-", "unstructured": (0, (5, 2)), "control": ":"}
INK, FAINT, STAMP = "#1c2024", "#5b646e", "#8a4b00"

COSTS = (
    *("train_seconds", "step_ms", "peak_run_bytes"),
    *("peak_step_bytes", "disk_bytes", "macs_effective"),
)

STYLE: Mapping[Any, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.grid": True,
    "grid.color": "#e3e6e8",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "reports",
}

METADATA: Mapping[str, Mapping[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
}
"""Nothing of the day or of the version."""

Looks = Mapping[str, Mapping[str, Any]]
"""Methods as `reports.charts.methods` describes them, by name."""


Drawn = Mapping[str, Mapping[str, str]]
"""File names without their endings, by what they show, by the slug of a section or a ranking."""


def draw_all(
    sections: Sequence[Section],
    rankings: Sequence[Ranking],
    charts: Mapping[str, Mapping[str, Any]],
    methods: Sequence[Mapping[str, Any]],
    folder: Path,
) -> Drawn:
    """Write every figure that there is something for, and return them.

    Args:
        sections: with the numbers of groups.
        rankings: across tasks.
        charts: curves and densities, as `reports.charts.chart_data` gives them, by section.
        methods: colours and markers, as `reports.charts.methods` gives them.
        folder: for the files.
    """
    looks = {method["id"]: method for method in methods}
    drawn: dict[str, dict[str, str]] = {}
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE, "backend": "agg"}):
        for section in (each for each in sections if each.tested):
            chart = charts[section.slug]
            for name, draw in _FIGURES.items():
                if (figure := draw(section, chart, looks)) is not None:
                    _save(figure, folder / f"{section.slug}-{name}")
                    drawn.setdefault(section.slug, {})[name] = f"{section.slug}-{name}"
        for ranking in rankings:
            _save(_ranking(ranking, looks), folder / ranking.slug)
            drawn[ranking.slug] = {"ranking": ranking.slug}
    return drawn


def _save(figure: Figure, path: Path) -> None:
    for kind, metadata in METADATA.items():
        figure.savefig(path.with_name(f"{path.name}.{kind}"), dpi=120, metadata=dict(metadata))


def _panels(
    section: Section, count: int, columns: int, title: str, height: float = 2.7
) -> tuple[Figure, list[Axes]]:
    rows = -(-count // columns)
    figure = Figure(figsize=(3.1 * columns + 1.6, height * rows + 0.75))
    axes = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    inches = figure.get_size_inches()
    figure.subplots_adjust(
        left=0.62 / inches[0],
        right=1 - 1.55 / inches[0],
        bottom=0.5 / inches[1],
        top=1 - 0.62 / inches[1],
        wspace=0.32,
        hspace=0.36,
    )
    _headline(figure, section.name, title, section.stamp)
    return figure, axes[:count]


def _headline(figure: Figure, name: str, title: str, stamp: str | None) -> None:
    height = figure.get_size_inches()[1]
    # A dollar sign would begin a formula.
    text = f"{title[0].upper()}{title[1:]}: {name}".replace("$", r"\$")
    figure.text(0.01, 1 - 0.2 / height, text, fontsize=10, weight="bold", va="center")
    if stamp:
        stamp = stamp.replace("$", r"\$")
        figure.text(
            0.01, 1 - 0.4 / height, stamp, fontsize=7.5, color=STAMP, weight="bold", va="center"
        )


def _legend(figure: Figure, methods: Iterable[str], looks: Looks) -> None:
    handles = [
        Line2D([], [], label=looks[m]["title"].replace("$", r"\$"), **_look(looks[m]))
        for m in methods
    ]
    height = figure.get_size_inches()[1]
    figure.legend(
        handles=handles,
        loc="upper right",
        bbox_to_anchor=(1, 1 - 0.5 / height),
        fontsize=7.5,
        handlelength=2.4,
    )


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
    """Name the x axis; a theoretical one is dashed and in italics."""
    quantity = QUANTITIES[key]
    theoretical = quantity.origin == "theoretical"
    axes.set_xlabel(quantity.title, style="italic" if theoretical else "normal")
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
    """Return the points (cost, metric) that no other is at least as good as in both."""

    def beaten(point: tuple[float, float]) -> bool:
        return any(
            other != point and other[0] <= point[0] and not section.better(point[1], other[1])
            for other in points
        )

    return sorted(point for point in set(points) if not beaten(point))


def _limit(axes: Axes, intervals: Sequence[Interval]) -> None:
    """Cut intervals that reach beyond the means by more than half of the means' own range."""
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
    keys = [key for key in COSTS if _pairs(section, key)]
    if not keys:
        return None
    figure, panels = _panels(
        section, len(keys), min(3, len(keys)), f"{section.metric_title} against cost"
    )
    for axes, key in zip(panels, keys, strict=True):
        pairs = _pairs(section, key)
        best = front(section, [(cost, test.mean) for _, cost, test in pairs])
        axes.step(*zip(*best, strict=True), where="post", color=INK, linewidth=0.8, alpha=0.6)
        together: dict[tuple[str, bool], list[tuple[float, Interval]]] = {}
        for group, cost, test in pairs:
            is_best = (cost, test.mean) in best
            together.setdefault((group.method, is_best), []).append((cost, test))
        for (method, is_best), points in together.items():
            _scatter(axes, points, looks[method], 1.0 if is_best else 0.3)
        _dense_line(axes, section)
        _limit(axes, [test for _, _, test in pairs])
        _name_axis(axes, key)
    panels[0].set_ylabel(f"Test {section.metric_title}")
    _legend(figure, dict.fromkeys(g.method for g in section.tried), looks)
    return figure


def _scatter(
    axes: Axes,
    points: Sequence[tuple[float, Interval]],
    method: Mapping[str, Any],
    alpha: float,
) -> None:
    """Draw points with their intervals; many at once, since each artist takes its time."""
    look = _look(method) | {"linestyle": "none", "alpha": alpha}
    axes.plot([x for x, _ in points], [y.mean for _, y in points], **look)
    sure = [(x, y.low, y.high) for x, y in points if y.low is not None]
    if sure:
        axes.vlines(*zip(*sure, strict=True), color=look["color"], linewidth=0.9, alpha=alpha)


def _errors(interval: Interval) -> list[list[float]] | None:
    if interval.low is None or interval.high is None:
        return None
    return [[interval.mean - interval.low], [interval.high - interval.mean]]


def _lines(keys: Sequence[str], title: str) -> Callable[..., Figure | None]:
    def draw(section: Section, chart: Mapping[str, Any], looks: Looks) -> Figure | None:
        figure, panels = _panels(section, len(keys), len(keys), title)
        pruning = list(dict.fromkeys(g.method for g in section.tried if g.kind != "dense"))
        for axes, key in zip(panels, keys, strict=True):
            pairs = _pairs(section, key)
            for method in pruning:
                points = sorted(
                    ((x, y) for g, x, y in pairs if g.method == method), key=lambda p: p[0]
                )
                _line(axes, points, looks[method])
            _dense_line(axes, section)
            _limit(axes, [test for _, _, test in pairs])
            _name_axis(axes, key)
            if key != "weight_sparsity" and all(x > 0 for _, x, _ in pairs) and pairs:
                _logarithmic(axes)
        panels[0].set_ylabel(f"Test {section.metric_title}")
        _legend(figure, pruning, looks)
        return figure

    return draw


def _logarithmic(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=7))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _line(axes: Axes, points: Sequence[tuple[float, Interval]], look: Mapping[str, Any]) -> None:
    xs = [x for x, _ in points]
    style = _look(look)
    axes.plot(xs, [y.mean for _, y in points], **style)
    sure = [(x, y.low, y.high) for x, y in points if y.low is not None and y.high is not None]
    if len(sure) > 1:
        x, low, high = zip(*sure, strict=True)
        axes.fill_between(x, low, high, color=style["color"], alpha=0.12, linewidth=0)


def _training(section: Section, chart: Mapping[str, Any], looks: Looks) -> Figure | None:
    groups = [g for g in chart["groups"] if g["kind"] != "dense"]
    if not groups:
        return None
    sparsity = max(group["sparsity"] for group in groups)
    shown = [
        index for index, group in enumerate(chart["groups"]) if group["sparsity"] in (0, sparsity)
    ]
    title = f"training and triggers at {100 * sparsity:g} %"
    figure, (left, right) = _panels(section, 2, 2, title, height=3.0)
    for index in shown:
        look = looks[chart["groups"][index]["method"]]
        _curve(left, chart["curves"][index], look)
        if chart["triggers"][index]:
            trigger = chart["triggers"][index]
            _curve(right, trigger, look)
            if trigger["threshold"] is not None:
                style = _look(look)
                right.axhline(
                    trigger["threshold"], color=style["color"], linestyle=":", linewidth=1
                )
    left.set_ylabel(f"Validation {section.metric_title}")
    right.set_ylabel("What the trigger watched")
    if right.lines:
        right.set_yscale("log")
    for axes in (left, right):
        axes.set_xlabel("Epochs spent (diamonds: pruned)")
    right.set_xlabel("Epochs spent (diamonds: pruned; dotted: fires below)")
    _legend(figure, [chart["groups"][index]["method"] for index in shown], looks)
    return figure


def _curve(axes: Axes, curve: Mapping[str, Any], look: Mapping[str, Any]) -> None:
    points: list[list[float]] = curve["points"]
    if not points:
        return
    style = _look(look) | {"marker": "none"}
    xs = [point[0] for point in points]
    axes.plot(xs, [point[1] for point in points], **style)
    axes.fill_between(
        xs, [p[2] for p in points], [p[3] for p in points], color=style["color"], alpha=0.1, lw=0
    )
    for moment in curve["pruned"]:
        nearest = min(points, key=lambda point: abs(point[0] - moment))
        axes.plot(moment, nearest[1], "D", color=style["color"], markeredgecolor=INK, markersize=4)


def _named(group: Mapping[str, Any], looks: Looks) -> str:
    title = str(looks[group["method"]]["title"])
    return f"{title}, {100 * group['sparsity']:g} %" if group["sparsity"] else title


def _density(section: Section, chart: Mapping[str, Any], looks: Looks) -> Figure | None:
    rows: list[tuple[str, Sequence[float]]] = [
        (_named(g, looks).replace("$", r"\$"), shares)
        for g, shares in zip(chart["groups"], chart["densities"], strict=True)
        if g["kind"] != "dense" and shares
    ]
    if not rows:
        return None
    layers = len(chart["layers"])
    width, height = 2.4 + max(0.16 * layers, 2.5), 1.35 + 0.19 * len(rows)
    figure = Figure(figsize=(width + 1.2, height))
    axes = figure.add_axes(
        (2.0 / (width + 1.2), 0.45 / height, (width - 2.2) / (width + 1.2), 1 - 1.05 / height)
    )
    _headline(figure, section.name, "weights left in each layer", section.stamp)
    # What is empty has no logarithm: it stays white, with a cross.
    image = axes.imshow(
        [[share or float("nan") for share in shares] for _, shares in rows],
        norm=matplotlib.colors.LogNorm(1e-4, 1),
        cmap="Blues",
        aspect="auto",
        interpolation="nearest",
    )
    for row, (_, shares) in enumerate(rows):
        for layer, share in enumerate(shares):
            if not share:
                axes.plot(layer, row, "x", color="#a8360b", markersize=5)
    axes.grid(visible=False)
    shown = range(0, layers, -(-layers // 20))
    axes.set_xticks(shown, [str(layer + 1) for layer in shown])
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=7)
    axes.set_xlabel("Layer, from the input to the output (cross: nothing left)")
    figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02)
    return figure


def _ranking(ranking: Ranking, looks: Looks) -> Figure:
    rows = len(ranking.ranked)
    figure = Figure(figsize=(9, max(2.6, 1.1 + 0.24 * rows)))
    left, right = figure.subplots(1, 2)
    height = figure.get_size_inches()[1]
    figure.subplots_adjust(
        left=0.14, right=0.97, bottom=0.5 / height, top=1 - 0.6 / height, wspace=0.2
    )
    warning = "TOO FEW SEEDS TO TELL" if ranking.too_few else ""
    _headline(
        figure, ranking.title, "Across tasks", "; ".join(filter(None, (warning, ranking.stamp)))
    )
    for place, row in enumerate(reversed(ranking.ranked)):
        look = _look(looks[row.method]) | {"linestyle": "none"}
        errors = _errors(row.score)
        left.errorbar(row.score.mean, place, xerr=errors, elinewidth=1.2, **look)
        right.plot(THRESHOLDS, row.profile, **(_look(looks[row.method]) | {"marker": "none"}))
    names = [row.title.replace("$", r"\$") for row in reversed(ranking.ranked)]
    left.set_yticks(range(rows), names)
    left.set_xlabel("Mean of normalised scores")
    right.set_xlabel("Normalised score")
    right.set_ylabel("Share of runs above")
    return figure


_FIGURES: Mapping[str, Callable[..., Figure | None]] = {
    "costs": _costs,
    "sparsity": _lines(("weight_sparsity", "compression"), "against sparsity and compression"),
    "equal": _lines(
        ("macs_effective", "macs", "disk_bytes"), "structured and unstructured at equal cost"
    ),
    "training": _training,
    "density": _density,
}
