"""The data of the page's charts."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from harness.record import Epoch, Record
from harness.results.intervals import Interval
from reports.groups import METRICS, Group, Section
from reports.lengths import Found
from reports.quantities import COSTS, PAPER_ONLY, QUANTITIES, epochs
from reports.results import Results

COLOURS = 7
MARKERS = 6
MOST_EPOCHS = 60
"""In a curve; longer ones are thinned."""

LARGEST = 1e300
"""The largest number that is drawn."""

Triple = tuple[float, float | None, float | None]


def methods(sections: Iterable[Section]) -> list[dict[str, Any]]:
    """Return every method with its colour and marker, which are the same in all figures."""
    found: dict[str, Group] = {}
    for section in sections:
        for group in section.groups:
            found.setdefault(group.method, group)
    pruning = [name for name in sorted(found) if found[name].kind != "dense"]
    looks = {name: (i % COLOURS, i % MARKERS) for i, name in enumerate(pruning)}
    return [
        {
            "id": name,
            "title": group.title,
            "kind": group.kind,
            "colour": looks[name][0] if name in looks else None,
            "marker": looks[name][1] if name in looks else 0,
        }
        for name, group in sorted(found.items())
    ]


def chart_data(section: Section, results: Results, lengths: Found) -> dict[str, Any]:
    """Return the data from which the page's script and the figures draw a section.

    Args:
        section: the section.
        results: the content of the results folder.
        lengths: inference over the length of sequences, as `reports.lengths.over_lengths` gives it.
    """
    left = [left_of_kinds(group) for group in section.tried]
    kinds = [*dict.fromkeys(kind for own in left for kind in own)]
    return {
        "title": section.name,
        "stamp": section.stamp,
        "metric": section.metric_title,
        "higher": section.higher_is_better,
        "qualities": _quality_names(section),
        "sparsities": list(section.sparsities),
        "groups": [_group(group) for group in section.tried],
        "layers": _layers(section, results),
        "kinds": kinds,
        "densities": [_densities(group, results) for group in section.tried],
        "left": [[own[kind] for kind in kinds] if own else [] for own in left],
        "curves": [_curve(section, group, results) for group in section.tried],
        "triggers": [_trigger(group, results) for group in section.tried],
        "lengths": [_lengths(lengths, group) for group in section.tried],
    }


def quantity_data() -> dict[str, Any]:
    """Return the quantities that can be axes, with title and largest value."""
    return {
        key: {
            "title": quantity.title,
            "theoretical": quantity.theoretical,
            "cost": key in COSTS and key not in PAPER_ONLY,
            "most": 100 if quantity.unit == "%" else None,
        }
        for key, quantity in QUANTITIES.items()
    }


def _quality_names(section: Section) -> dict[str, str]:
    keys = sorted({key for group in section.groups for key in group.intervals} - set(QUANTITIES))
    keys = [*(key for key in METRICS if key in keys), *(k for k in keys if k not in METRICS)]
    names = {
        "test": f"Test {section.metric_title}",
        "validation": f"Validation {section.metric_title}",
    }
    return {key: names.get(key, key.removeprefix("further:").replace("_", " ")) for key in keys}


def _group(group: Group) -> dict[str, Any]:
    scales = {key: quantity.scale for key, quantity in QUANTITIES.items()}
    return {
        "method": group.method,
        "sparsity": group.sparsity,
        "kind": group.kind,
        "status": group.status,
        "remark": group.remark,
        "values": {k: _triple(i, scales.get(k, 1)) for k, i in group.intervals.items()},
        "relative": {k: _triple(i) for k, i in {**group.ratios, **group.differences}.items()},
        "estimated": sorted(group.estimated & group.intervals.keys()),
        "disturbed": sorted(group.disturbed & group.intervals.keys()),
        "runs": list(group.run_ids),
    }


def _triple(interval: Interval, scale: float = 1) -> Triple:
    low, high = interval.low, interval.high
    return (
        rounded(scale * interval.mean),
        None if low is None else rounded(scale * low),
        None if high is None else rounded(scale * high),
    )


def rounded(value: float) -> float:
    """Return a number with five digits, which is more than can be seen."""
    return float(f"{value:.5g}")


def _tested(group: Group, results: Results) -> list[Record]:
    records = [results.records[run] for run in group.run_ids]
    return [record for record in records if record["events"]]


def _densities(group: Group, results: Results) -> list[float]:
    """Return the mean fraction of weights left in each layer of the group's runs."""
    layers = [r["sparsity"].get("per_layer") for r in _tested(group, results)]
    means = []
    for together in zip(*(each for each in layers if each), strict=False):
        shares = [layer["kept"] / max(layer["weights"], 1) for layer in together]
        means.append(float(f"{sum(shares) / len(shares):.3g}"))
    return means


def left_of_kinds(group: Group) -> dict[str, float]:
    """Return the mean fraction of channels left of each kind in the group's runs."""
    shares: dict[str, list[float]] = {}
    for run in group.members:
        for kind, share in run.channels_left.items():
            shares.setdefault(kind, []).append(share)
    return {kind: float(f"{statistics.mean(own):.3g}") for kind, own in shares.items()}


def _layers(section: Section, results: Results) -> list[str]:
    for group in section.groups:
        for record in _tested(group, results):
            return [layer["name"] for layer in record["sparsity"].get("per_layer", ())]
    return []


def _epochs(record: Record) -> Iterable[tuple[float, Epoch]]:
    """Iterate over the epochs of a run, each with the number of epochs spent until its end."""
    for event in record["events"]:
        for epoch in event.get("epochs", ()):
            yield epochs(epoch["spent"], record), epoch


def _curve(section: Section, group: Group, results: Results) -> dict[str, Any]:
    series = [
        [(spent, epoch["validation"].get(section.metric)) for spent, epoch in _epochs(record)]
        for record in _tested(group, results)
    ]
    return {"points": _mean_curve(series), "pruned": [rounded(x) for x in group.pruned_after]}


def _trigger(group: Group, results: Results) -> dict[str, Any] | None:
    records = _tested(group, results)
    series = [
        [(spent, epoch["trigger"]) for spent, epoch in _epochs(record) if "trigger" in epoch]
        for record in records
    ]
    if not any(series):
        return None
    endings = [e["ended_by"] for r in records for e in r["events"] if e["verb"] == "train"]
    known = (epoch.get("threshold") for r in records for _, epoch in _epochs(r))
    thresholds = (each for each in known if each is not None and -LARGEST < each < LARGEST)
    return {
        "points": _mean_curve(series),
        "threshold": next(map(rounded, thresholds), None),
        "pruned": [rounded(x) for x in group.pruned_after],
        "fired": endings.count("trigger"),
        "capped": endings.count("cap"),
    }


def _lengths(found: Found, group: Group) -> dict[str, Any] | None:
    """Return [length, time, ratio to dense] at each length; the ratio may be missing."""
    measured = found.get((group.method, group.sparsity))
    if measured is None or not measured.times:
        return None
    ratios = {length: _triple(each) for length, each in measured.ratios.items()}
    return {
        "points": [
            [length, _triple(time), ratios.get(length)] for length, time in measured.times.items()
        ],
        "disturbed": [measured.disturbed, measured.ratios_disturbed],
    }


def _mean_curve(series: Sequence[Sequence[tuple[float, float | None]]]) -> list[list[float]]:
    """Return [epoch, mean, lowest, highest] of each epoch, over the runs with a value there."""
    values: dict[float, list[float]] = {}
    for run in series:
        for spent, value in run:
            if value is not None and math.isfinite(value):
                values.setdefault(rounded(spent), []).append(value)
    known = sorted(values)
    thinned = known[:: -(-len(known) // MOST_EPOCHS)] if known else []
    if known and thinned[-1] != known[-1]:
        thinned.append(known[-1])
    return [
        [epoch, *map(rounded, (sum(v) / len(v), min(v), max(v)))]
        for epoch in thinned
        for v in (values[epoch],)
    ]
