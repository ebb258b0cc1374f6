"""How much each part of a network can lose: the document of ``sensitivity``, and its table.

Torch is not imported.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, TypedDict

from harness.record import Data
from harness.text import columns, count, number, table


class Trial(TypedDict):
    """A network of which one part has lost something."""

    fraction: float
    """The fraction of the part that was asked for."""
    removed: int
    """How many of its weights or channels are gone."""
    weights: float
    """The fraction of the network's prunable weights that is gone."""
    macs: float
    """The fraction of its multiply-accumulates that is gone."""
    metric: float | None
    """The metric on the validation data; None if it is not finite."""


class Part(TypedDict):
    """A layer, or a group of coupled channels."""

    name: str
    size: int
    """Its weights or channels."""
    weights: float
    """The fraction of the network's prunable weights that goes with it, if only it is removed."""
    macs: float
    """The fraction of its multiply-accumulates."""
    trials: list[Trial]
    """In the order of the fractions."""
    can_lose: float
    """The largest fraction before the first that costs more than is tolerated; 0 if none is."""


class Scan(TypedDict):
    """All parts of a network, by the units and the criterion of one method."""

    pruner: str
    title: str | None
    units: str
    """The registered name of the units, such as weights or channels."""
    criterion: str
    """The name of the function that decides what goes first."""
    parts: list[Part]
    """In the order of the network."""
    whole: dict[str, str]
    """The parts that were not tried, by name, each with the reason."""


class Sensitivity(TypedDict):
    """What each part of a network can lose alone, without training, before the metric falls."""

    run: str
    """The run that trained the network."""
    task: str
    title: str
    """Of the task."""
    profile: str
    seed: int
    data: Data
    metric: str
    goal: Literal["max", "min"]
    dense: float
    """The metric of the whole network on the validation data."""
    tolerance: float
    """The loss that is tolerated, as a fraction of the metric of the whole network."""
    fractions: list[float]
    scans: list[Scan]
    """One for each method."""


def lost(metric: float | None, dense: float, goal: str) -> float:
    """Return by how much a metric is worse than that of the whole network, relative to it.

    Negative if it is better; infinite if there is no metric.
    """
    if metric is None:
        return math.inf
    worse = dense - metric if goal == "max" else metric - dense
    if worse == 0:
        return 0.0
    return worse / abs(dense) if dense else math.copysign(math.inf, worse)


def can_lose(trials: Sequence[Trial], dense: float, goal: str, tolerance: float) -> float:
    """Return the largest fraction before the first whose loss exceeds the tolerance; 0 if none.

    A fraction of less than half a channel removes nothing and does not count.
    """
    largest = 0.0
    for trial in trials:
        if lost(trial["metric"], dense, goal) > tolerance:
            break
        if trial["removed"]:
            largest = trial["fraction"]
    return largest


def shown(trial: Trial) -> str:
    """Return the metric as text: a dash if nothing was removed, ``none`` if it is not finite."""
    if trial["removed"] and trial["metric"] is None:
        return "none"
    return number(trial["metric"] if trial["removed"] else None)


def summarise_sensitivity(found: Sensitivity) -> str:
    """Return the tables of a document, one for each method."""
    head = [
        (f"{found['metric']}", f"{number(found['dense'])} on the validation data, whole network"),
        ("data", _data(found["data"])),
        ("can lose", f"the largest fraction that costs at most {_share(found['tolerance'])} of it"),
    ]
    blocks = [f"{found['run']}\n{columns(head)}"]
    blocks += ["\n".join(_lines(scan, found)) for scan in found["scans"]]
    return "\n\n".join(blocks)


def _data(data: Data) -> str:
    source = str(data["source"])
    return f"{source.upper() if source == 'synthetic' else source}: {data['name']}"


def _lines(scan: Scan, found: Sensitivity) -> Iterator[str]:
    yield f"{scan['units']} by {scan['criterion']} ({scan['pruner']}), from one part alone:"
    asked = [_share(fraction) for fraction in found["fractions"]]
    header = ("part", scan["units"], "of weights", "of macs", *asked, "can lose")
    rows = [
        (
            part["name"],
            count(part["size"]),
            f"{100 * part['weights']:.2g} %",
            f"{100 * part['macs']:.2g} %",
            *map(shown, part["trials"]),
            _share(part["can_lose"]),
        )
        for part in scan["parts"]
    ]
    yield table([header, *rows], left=1)
    if scan["whole"]:
        reasons: dict[str, list[str]] = {}
        for name, reason in scan["whole"].items():
            reasons.setdefault(reason, []).append(name)
        yield columns([(f"left whole ({why})", ", ".join(names)) for why, names in reasons.items()])


def _share(fraction: float) -> str:
    return f"{100 * fraction:.3g} %"
