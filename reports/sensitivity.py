"""Heat maps of what each part of a network can lose, and the document behind them."""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from harness.results.sensitivity import Scan, Sensitivity, lost, shown
from harness.storage import files
from harness.text import count, number
from reports.drawing import broken, frame_heat_map, in_style, plain, save

LIMIT = "#a8360b"
"""The colour of the line behind what a part can lose."""

CELL = 0.46, 0.19
"""Width and least height of a cell, in inches."""


def write(found: Sensitivity, folder: Path) -> None:
    """Write a heat map for each method, and ``sensitivity.json``.

    Args:
        found: what each part can lose.
        folder: an existing folder; files in it are replaced.

    Raises:
        RunFailed: a file cannot be written.
    """
    with in_style():
        for scan in found["scans"]:
            if scan["parts"]:
                save(heat_map(scan, found), folder / f"sensitivity-{scan['pruner']}")
    files.write(folder / "sensitivity.json", (json.dumps(found, indent=1) + "\n").encode())


def heat_map(scan: Scan, found: Sensitivity) -> Figure:
    """Draw a row for each part and a column for each fraction.

    The colour is the loss of the metric, relative to the whole network; the number is the metric.
    A line stands behind the last fraction that the part can lose.
    """
    parts, fractions = scan["parts"], found["fractions"]
    labels = [broken(f"{part['name']} ({count(part['size'])})") for part in parts]
    lines = sum(label.count("\n") + 1 for label in labels)
    wide, down = CELL[0] * len(fractions), CELL[1] * max(lines, len(parts))
    figure = Figure(figsize=(max(wide, 3.2), down))
    axes = figure.add_axes((0, 0, 1, 1))
    losses = [
        [
            min(max(lost(trial["metric"], found["dense"], found["goal"]), 0.0), 1.0)
            for trial in part["trials"]
        ]
        for part in parts
    ]
    scale = PowerNorm(0.5, 0, 1)
    image = axes.imshow(losses, norm=scale, cmap="Blues", aspect="auto", interpolation="nearest")
    for row, part in enumerate(parts):
        for column, trial in enumerate(part["trials"]):
            is_dark = float(scale(losses[row][column])) > 0.6
            axes.text(
                column,
                row,
                shown(trial),
                color="white" if is_dark else "black",
                fontsize=6,
                ha="center",
                va="center",
            )
        limit = sum(fraction <= part["can_lose"] for fraction in fractions) - 0.5
        axes.plot([limit, limit], [row - 0.5, row + 0.5], color=LIMIT, lw=2, clip_on=False)
    axes.set_xticks(range(len(fractions)), [f"{100 * each:.3g} %" for each in fractions])
    axes.set_yticks(range(len(parts)), labels, fontsize=7)
    metric = plain(found["metric"].replace("_", " "))
    axes.set_xlabel(
        f"Removed from one part alone. Line: costs at most {100 * found['tolerance']:.3g} %\n"
        f"Numbers: validation {metric}; {number(found['dense'])} for the whole network"
    )
    title = f"{scan['units']} lost by {scan['criterion']}"
    profile = "" if found["profile"] == "embedded" else f" ({found['profile']})"
    frame_heat_map(figure, image, f"{found['title']}{profile}", title, stamp(found))
    return figure


def stamp(found: Sensitivity) -> str | None:
    """Return a warning if the data are not the published ones."""
    data = found["data"]
    if data["source"] == "synthetic":
        return f"SYNTHETIC DATA: {data['name']}"
    return f"STAND-IN DATA: {data['name']}" if data.get("stands_in_for") else None
