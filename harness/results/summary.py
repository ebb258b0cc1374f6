"""Records in a few lines, for people."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from harness.settings import as_text
from harness.text import WIDTH, count, number, percent, several, size, table

Record = Mapping[str, Any]


ENDINGS = {"trigger": "the trigger fired", "cap": "the cap was reached"}
"""Why a training ended that something could end early."""


def _with_unit(unit: str, scale: float = 1) -> Callable[[float | None], str]:
    return lambda value: "-" if value is None else f"{number(scale * value)} {unit}"


COSTS: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "train_seconds": ("training time", _with_unit("s")),
    "peak_run_bytes": ("peak memory of the run", size),
    "energy_kwh": ("energy", _with_unit("Wh", 1000)),
    "emissions_g": ("emissions", _with_unit("g CO2e")),
    "step_ms": ("training step", _with_unit("ms")),
    "inference_ms": ("inference of a batch", _with_unit("ms")),
    "peak_step_bytes": ("peak memory of a step", size),
    "disk_bytes": ("size on disk", size),
    "macs": ("multiply-accumulates", count),
    "macs_effective": ("of weights that are left", count),
    "parameters": ("parameters", count),
}
"""What each cost of a record is called, and how its values are written."""


def summarise(record: Record) -> str:
    """Return the outcome of a run in a few lines."""
    lines = [f"{record['run_id']}: {record['status']}"]
    for name, text in _rows(record):
        lines += textwrap.wrap(
            text,
            WIDTH,
            initial_indent=f"  {name:<17}",
            subsequent_indent=" " * 19,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def _rows(record: Record) -> Iterator[tuple[str, str]]:
    cost = {name: text(record["cost"][name]) for name, (_, text) in COSTS.items()}
    if record["reason"]:
        yield "because", record["reason"]
    yield record["quality"]["metric"], _quality(record["quality"])
    stamp = "SYNTHETIC" if record["data"]["source"] == "synthetic" else record["data"]["source"]
    yield "data", f"{stamp}: {record['data']['name']}"
    if record["spec"]["overrides"]:
        yield (
            "settings",
            ", ".join(f"{k}={as_text(v)}" for k, v in record["spec"]["overrides"].items()),
        )
    yield "weights removed", _sparsity(record["sparsity"])
    for before, event in pairwise([{}, *record["events"]]):
        if event["verb"] == "prune":
            yield "pruned", _pruning(event, before, record)
    yield (
        "training",
        f"{several(record['cost']['epochs'], 'epoch')}, {several(record['cost']['steps'], 'step')} "
        f"in {cost['train_seconds']}, peak memory {cost['peak_run_bytes']}",
    )
    if interruptions := len(record["provenance"]["resumed"]):
        yield "interrupted", f"{several(interruptions, 'time')}; costs are of all attempts together"
    if record["cost"]["energy_kwh"] is not None:
        method, scope = (record["cost"].get(key) for key in ("energy_method", "energy_scope"))
        yield "energy", f"{cost['energy_kwh']}, {cost['emissions_g']}; {method}, {scope}"
    yield "training step", f"{cost['step_ms']}, peak memory {cost['peak_step_bytes']}"
    yield "inference", f"{cost['inference_ms']} a batch"
    yield "network", f"{cost['parameters']} parameters, {cost['disk_bytes']} on disk"
    yield "operations", _operations(record)
    if disturbed := record["cost"].get("disturbed"):
        yield "disturbed", _disturbance(disturbed, record["cost"])
    for reason, names in _not_measured(record["cost"]):
        yield "not measured", f"{', '.join(names)}: {reason}"
    yield "measured on", _machine(record["provenance"])


def _operations(record: Record) -> str:
    """Say what a sample takes, and how much less that is than in the dense network."""
    cost = record["cost"]
    macs, dense, effective = (cost.get(f"macs{part}") for part in ("", "_dense", "_effective"))
    text = f"{count(macs)} multiply-accumulates a sample"
    if macs and dense and macs < dense:
        text += f", {number(100 * macs / dense)} % of the dense network's {count(dense)}"
    if macs != effective:  # weights that are zero and still there
        text += f", {count(effective)} of them by weights that are left (which is no speed-up)"
    return text


def _quality(quality: Mapping[str, Any]) -> str:
    if quality["test"] is None:
        return "not tested"
    better = "higher" if quality["goal"] == "max" else "lower"
    return (
        f"{number(quality['test'])} test, {number(quality['validation'])} validation; "
        f"{better} is better, ignoring the input gives {number(quality['baseline'])}"
    )


def _sparsity(sparsity: Mapping[str, Any]) -> str:
    weights = sum(layer["weights"] for layer in sparsity["per_layer"])
    emptied = ", ".join(sparsity["emptied_layers"])
    asked = f"{percent(sparsity['requested'])} were asked for"
    if sparsity["weights"] > 0 and sparsity["requested"] == 0:
        asked = "no sparsity was asked for"
    return (
        f"{percent(sparsity['weights'])} of {count(weights)}, {asked}; "
        f"{percent(sparsity['effective'])} no longer have an effect"
        + (f"; nothing is left of {emptied}" if emptied else "")
    )


def _pruning(event: Mapping[str, Any], before: Mapping[str, Any], record: Record) -> str:
    when = "before training"
    if event["spent"]:
        when = f"after {several(_epochs(event['spent'], record), 'epoch')}"
    why = ENDINGS.get(before.get("ended_by", ""))
    flow = event.get("gradient_flow") or {"before": None, "after": None}
    return (
        f"{_reached(event)} {when}{f', when {why}' if why else ''}; "
        f"gradient flow {number(flow['before'])} -> {number(flow['after'])}"
    )


def _reached(event: Mapping[str, Any]) -> str:
    """Say what a pruning event has left, and what it was asked for, where that is not the same."""
    target, of = event["target"], event.get("target_of")
    # Records of earlier versions do not say what was reached.
    reached = event.get("sparsity", target)
    if of is not None:
        return f"to {percent(reached)} of the weights, to lose {percent(target)} of the {of}"
    if percent(reached) == percent(target):
        return f"to {percent(reached)}"
    return f"to {percent(reached)}, where {percent(target)} were the target,"


def _epochs(steps: int, record: Record) -> float:
    """Return a number of steps in epochs."""
    cost = record["cost"]
    return float(steps * cost["epochs"] / cost["steps"]) if cost["steps"] else 0.0


def _not_measured(cost: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Go through the reasons why costs could not be measured, and the costs of each."""
    for reason in dict.fromkeys(cost["reasons"].values()):
        missing = [name for name, why in cost["reasons"].items() if why == reason]
        names = [COSTS[name][0] for name in COSTS if name in missing]
        if names:
            yield reason, names


def _disturbance(disturbed: Mapping[str, float], cost: Mapping[str, Any]) -> str:
    """Return for how long what was timed had no processor, and what else worked meanwhile."""
    shares = {name: percent(round(share, 2)) for name, share in disturbed.items()}
    others = shares.pop("energy_kwh", None)
    loads = [cost.get("load", {}).get(name, {}).get("during") for name in shares]
    parts = [
        f"without a processor for {share} of {COSTS[name][0]}" for name, share in shares.items()
    ]
    if busiest := max((load for load in loads if load is not None), default=0):
        parts.append(f"other work kept {several(busiest, 'processor')} busy")
    if others is not None:
        parts.append(f"{others} of the energy may be that of other work")
    return "; ".join(parts)


def _machine(provenance: Mapping[str, Any]) -> str:
    return f"{provenance['device']}, {several(provenance['threads'], 'thread')}"


def summarise_events(record: Record) -> str:
    """Return what happened, a line for each epoch and for what came between."""
    metric = record["quality"]["metric"]
    header = ("epoch", "step", "loss", f"validation {metric}", "trigger")
    rows: list[Sequence[str]] = [header]
    for event in record["events"]:
        for epoch in event.get("epochs", ()):
            rows.append(
                (
                    f"{_epochs(epoch['spent'], record):g}",
                    str(epoch["spent"]),
                    number(epoch["loss"]),
                    number(epoch["validation"].get(metric)),
                    number(epoch["trigger"]) if "trigger" in epoch else "",
                )
            )
        rows += [("", str(event["spent"]), text) for text in _happening(event)]
    if not any(len(row) == len(header) and row[-1] for row in rows[1:]):
        rows = [row[: len(header) - 1] for row in rows]
    return table(rows)


def _happening(event: Mapping[str, Any]) -> Iterator[str]:
    match event["verb"]:
        case "train" if event["ended_by"] in ENDINGS:
            yield ENDINGS[event["ended_by"]]
        case "prune":
            yield f"pruned {event['units']} {_reached(event).rstrip(',')}"
        case "snapshot":
            yield "took a snapshot"
        case "rewind":
            yield f"rewound to step {event['position']}"
