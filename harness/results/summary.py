"""A record in a few lines of text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

from harness.budget import written as written_amount
from harness.record import (
    COSTS,
    DISTURBED,
    NOTHING_SCORED,
    SLOWER_THAN_DENSE,
    Budget,
    Cost,
    CostAtLength,
    Event,
    Number,
    Provenance,
    Quality,
    Quantity,
    Record,
    Sparsity,
    fields,
)
from harness.results.receipts import receipt_lines, sparse_kernels_line
from harness.settings import as_text
from harness.text import WIDTH, count, number, percent, several, size, table

ENDINGS = {"trigger": "the trigger fired", "cap": "the cap was reached"}
"""Why training ended before its limit."""


def label(cost: Quantity) -> str:
    """Return the label of a cost as it reads within a line."""
    return cost.label[0].lower() + cost.label[1:]


IN_WORDS: Mapping[str, str] = {
    **{name: label(each) for name, each in COSTS.items()},
    "by_length": "inference of shorter sequences",
}
"""What costs are called within a line, by their keys in the record."""


def written(value: Number | None, unit: str) -> str:
    """Return a cost with its unit; a dash if it is not known."""
    if value is None:
        return "-"
    match unit:
        case "bytes":
            return size(value)
        case "kWh":
            return f"{number(1000 * value)} Wh"
        case "g":
            return f"{number(value)} g CO2e"
        case "operations" | "parameters":
            return count(value)
    return f"{number(value)} {unit}".rstrip()


def task_title(record: Record) -> str:
    """Return the title of its task, without the usual network if a setting names another one."""
    title = record["task"]["title"] or record["spec"]["task"]
    data, comma, _network = title.rpartition(", ")
    return data if comma and "model" in record["spec"]["overrides"] else title


def summarise(record: Record) -> str:
    """Return the result of a run in a few lines."""
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
    costs: Mapping[str, Number | None] = record["cost"]  # type: ignore[assignment]
    cost = {name: written(costs.get(name), each.unit) for name, each in COSTS.items()}
    if record["reason"]:
        yield "because", record["reason"]
    yield record["quality"]["metric"], _quality(record["quality"])
    source = record["data"]["source"] or "unknown"
    stamp = source.upper() if source in ("synthetic", "unofficial") else source
    yield "data", f"{stamp}: {record['data']['name']}"
    if record["spec"]["overrides"]:
        yield (
            "settings",
            ", ".join(f"{k}={as_text(v)}" for k, v in record["spec"]["overrides"].items()),
        )
    if (budget := record["sparsity"].get("budget")) is not None:
        yield "budget", _budget(record["spec"]["budget"], budget)
    yield "weights removed", _sparsity(record["sparsity"])
    for before, event in pairwise([None, *record["events"]]):
        if event is not None and event["verb"] == "prune" and event.get("measured", True):
            yield "pruned", _pruning(event, before, record)
    for what, text, spent in _frequent(record["events"]):
        yield what, f"{text} in {several(_epochs(spent, record), 'epoch')}"
    if (layers := record["sparsity"].get("sparse_kernels")) is not None:
        yield "sparse kernels", _sparse_kernels(layers, record)
    yield (
        "training",
        f"{several(record['cost']['epochs'], 'epoch')}, {several(record['cost']['steps'], 'step')} "
        f"in {cost['train_seconds']}, peak memory {cost['peak_run_bytes']}",
    )
    if record["cost"].get("scoring_passes") is not None:
        yield (
            "scoring",
            f"{cost['scoring_passes']} passes over a batch in {cost['scoring_seconds']}, "
            f"peak memory {cost['peak_scoring_bytes']} more",
        )
    if interruptions := len(record["provenance"]["resumed"]):
        yield "interrupted", f"{several(interruptions, 'time')}; costs cover all attempts"
    if record["cost"]["energy_kwh"] is not None:
        method, scope = record["cost"].get("energy_method"), record["cost"].get("energy_scope")
        yield "energy", f"{cost['energy_kwh']}, {cost['emissions_g']}; {method}, {scope}"
    with_sparse = {
        name: _beside_dense(costs.get(f"{name}_sparse_ms"), costs[f"{name}_ms"])
        for name in ("step", "inference")
    }
    peak = cost["peak_step_bytes"]
    yield "training step", f"{cost['step_ms']}{with_sparse['step']}, peak memory {peak}"
    yield "inference", f"{cost['inference_ms']} per batch{with_sparse['inference']}"
    for length, each in (record["cost"].get("by_length") or {}).items():
        yield f"at length {length}", _at_length(each)
    yield "network", f"{cost['parameters']} parameters, {cost['disk_bytes']} on disk"
    yield "operations", _operations(record)
    if record["cost"].get("disturbed"):
        measured_on = record["provenance"].get("measured_on") or record["provenance"]
        on_gpu = cast(Provenance, measured_on).get("device_kind") == "cuda"
        yield "disturbed", disturbance(record["cost"], on_gpu)
    for reason, names in _not_measured(record["cost"]):
        yield "not measured", f"{', '.join(names)}: {reason}"
    yield "measured on", _machine(record["provenance"])
    if alone := record["provenance"].get("measured_on"):
        yield "network on", _machine(cast(Provenance, alone))


def _operations(record: Record) -> str:
    """Return the operations per sample, also in percent of the dense network's."""
    cost = record["cost"]
    macs, dense, effective = cost["macs"], cost.get("macs_dense"), cost["macs_effective"]
    text = f"{count(macs)} multiply-accumulates per sample"
    if macs and dense and macs < dense:
        text += f", {number(100 * macs / dense)} % of the dense network's {count(dense)}"
    if macs != effective:  # some weights are zero and still multiplied
        text += f", {count(effective)} without masked weights (theoretical; not a speed-up)"
    if (trained := cost.get("train_macs")) is not None:
        text += f"; {count(trained)} in training"
    return text


def _at_length(cost: CostAtLength) -> str:
    """Return what the inference of sequences of one length costs, without what is not known."""
    known = (
        (cost.get("inference_ms"), "ms", "{} per batch"),
        (cost.get("peak_inference_bytes"), "bytes", "peak memory {}"),
        (cost.get("macs"), "operations", "{} multiply-accumulates per sample"),
    )
    return ", ".join(
        text.format(written(value, unit)) for value, unit, text in known if value is not None
    )


def _quality(quality: Quality) -> str:
    if quality["test"] is None:
        return "not tested"
    better = "higher" if quality["goal"] == "max" else "lower"
    return (
        f"{number(quality['test'])} test, {number(quality['validation'])} validation; "
        f"{better} is better, a constant prediction scores {number(quality['baseline'])}"
    )


def _budget(asked: str, budget: Budget) -> str:
    kind, dense = budget["kind"], budget["dense"]
    reached = written_amount(kind, budget["reached"] * dense, 4)
    return (
        f"{asked}: {reached}, {percent(budget['reached'])} of the dense network's "
        f"{written_amount(kind, dense, 4)}; {percent(budget['asked'])} permitted"
    )


def _sparsity(sparsity: Sparsity) -> str:
    weights = sum(layer["weights"] for layer in sparsity["per_layer"])
    emptied = ", ".join(sparsity["emptied_layers"])
    requested = f"{percent(sparsity['requested'])} requested"
    if (budget := sparsity.get("budget")) is not None:
        requested = f"for {percent(budget['asked'])} of the dense network's {budget['kind']}"
    elif (pattern := sparsity.get("pattern")) is not None:
        requested = f"from the pattern {pattern}"
    elif sparsity["weights"] > 0 and sparsity["requested"] == 0:
        requested = "no sparsity requested"
    return (
        f"{percent(sparsity['weights'])} of {count(weights)}, {requested}; "
        f"{percent(sparsity['effective'])} removed or disconnected"
        + (f"; empty layers: {emptied}" if emptied else "")
    )


def _pruning(event: Event, before: Event | None, record: Record) -> str:
    when = _moment(event["spent"], record)
    why = ENDINGS.get(before.get("ended_by", "")) if before else None
    flow = event.get("gradient_flow") or {"before": None, "after": None}
    return (
        f"{_reached(event)} {when}{f', when {why}' if why else ''}; "
        f"gradient flow {number(flow['before'])} -> {number(flow['after'])}"
    )


def _moment(spent: int, record: Record) -> str:
    return f"after {several(_epochs(spent, record), 'epoch')}" if spent else "before training"


def _beside_dense(sparse: Number | None, dense: Number | None) -> str:
    if sparse is None:
        return ""
    slower = f" ({SLOWER_THAN_DENSE})" if dense is not None and sparse > dense else ""
    return f", {number(sparse)} ms with sparse kernels{slower}"


def _sparse_kernels(since: Mapping[str, int], record: Record) -> str:
    """Return how many masked layers are on sparse kernels at the end, and since when."""
    choices = [event["sparse_kernels"] for event in record["events"] if "sparse_kernels" in event]
    if not choices:
        return "none, since nothing was pruned"
    if not since:
        return sparse_kernels_line(choices[-1])
    masked = len(since) + sum(map(len, choices[-1]["dense"].values()))
    spent = sorted({record["events"][number]["spent"] for number in since.values()})
    when = " and ".join(_moment(steps, record) for steps in spent)
    return (
        f"in {len(since)} of {several(masked, 'masked layer')} at the end, since the pruning {when}"
    )


def _frequent(events: Sequence[Event]) -> Iterator[tuple[str, str, int]]:
    """Sum up the prunings that are not measured, and the exchanges.

    Yields:
        What happened, how often and to what end, and the steps taken until the last time.
    """
    prunings = [e for e in events if e["verb"] == "prune" and not e.get("measured", True)]
    if prunings:
        often = several(len(prunings), "time")
        yield "pruned", f"gradually, {often}, {_reached(prunings[-1])}", prunings[-1]["spent"]
    exchanges = [event for event in events if event["verb"] == "exchange"]
    if exchanges:
        often = several(len(exchanges), "time")
        units = f"{count(sum(each['exchanged'] for each in exchanges))} {exchanges[-1]['units']}"
        yield "exchanged", f"{units} {often}", exchanges[-1]["spent"]


def _reached(event: Event) -> str:
    """Return the sparsity that a pruning reached, and its target if that differs."""
    target, of = event["target"], event.get("target_of")
    # Older records do not say which sparsity was reached.
    reached = event.get("sparsity", target)
    if of is not None:
        return f"to {percent(reached)} of the weights, to remove {percent(target)} of the {of}"
    if percent(reached) == percent(target):
        return f"to {percent(reached)}"
    return f"to {percent(reached)} (target: {percent(target)})"


def _epochs(steps: int, record: Record) -> float:
    """Return a number of steps in epochs."""
    cost = record["cost"]
    return float(steps * cost["epochs"] / cost["steps"]) if cost["steps"] else 0.0


def _not_measured(cost: Cost) -> Iterator[tuple[str, list[str]]]:
    """Go through the reasons why costs could not be measured, each with these costs."""
    for reason in dict.fromkeys(cost["reasons"].values()):
        if reason == NOTHING_SCORED:
            continue
        missing = [name for name, why in cost["reasons"].items() if why == reason]
        names = [words for name, words in IN_WORDS.items() if name in missing]
        if names:
            yield reason, names


def measured_line(cost: Mapping[str, Any], on_gpu: bool) -> str:
    """Return the times of a measurement, and what disturbed them.

    Args:
        cost: the costs that were measured.
        on_gpu: whether they were measured on a GPU.
    """
    line = f"step {number(cost['step_ms'])} ms, inference {number(cost['inference_ms'])} ms"
    if of_one := cost.get("by_batch_size", {}).get("1", {}).get("inference_ms"):
        line += f", single-sample inference {number(of_one)} ms"
    if cost.get("disturbed"):
        line += f" (disturbed: {disturbance(cost, on_gpu)})"
    return line


def disturbance(cost: Mapping[str, Any], on_gpu: bool) -> str:
    """Return what is known of the other programs that disturbed measurements.

    Args:
        cost: the costs of a record or of a measurement.
        on_gpu: whether the final network was measured on a GPU, whose clocks show no waiting.
    """
    shares = {name: share or 0.0 for name, share in cost["disturbed"].items() if name in IN_WORDS}
    energy = shares.pop("energy_kwh", None)
    loads = [cost.get("load", {}).get(name, {}).get("during") or 0.0 for name in shares]
    parts = []
    for name, share in shares.items():
        rounded = percent(round(share, 2))
        if on_gpu and fields(Cost)[name].of == "network":
            parts.append(f"other programs used the GPU for {rounded} of the time")
        elif share > DISTURBED:
            parts.append(f"waited for a processor during {rounded} of the {IN_WORDS[name]}")
    if busiest := max(loads, default=0.0):
        parts.append(f"other programs kept {several(busiest, 'processor')} busy")
    if energy is not None:
        parts.append(f"{percent(round(energy, 2))} of the energy may belong to other programs")
    return "; ".join(dict.fromkeys(parts)) or "other programs were running"


def _machine(provenance: Provenance) -> str:
    return f"{provenance['device']}, {several(provenance['threads'], 'thread')}"


def summarise_events(record: Record) -> str:
    """Return what happened: a line for each epoch, and one for each other event."""
    metric = record["quality"]["metric"]
    header = ("epoch", "step", "loss", f"validation {metric}", "trigger")
    rows: list[Sequence[str]] = [header]
    since: list[Event] = []
    for event in record["events"]:
        since.append(event)
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
        if event.get("epochs") or event is record["events"][-1]:
            rows += [("", str(spent), f"{what} {text}") for what, text, spent in _frequent(since)]
            since = []
    if not any(len(row) == len(header) and row[-1] for row in rows[1:]):
        rows = [row[: len(header) - 1] for row in rows]
    return table(rows)


def _kernels_of(event: Event) -> Iterator[str]:
    if "sparse_kernels" in event:
        yield f"  sparse kernels: {sparse_kernels_line(event['sparse_kernels'])}"


def _happening(event: Event) -> Iterator[str]:
    match event["verb"]:
        case "train" if event["ended_by"] in ENDINGS:
            yield ENDINGS[event["ended_by"]]
        case "prune" if event.get("measured", True):
            yield f"pruned {event['units']} {_reached(event)}"
            if "receipt" in event:
                yield from (f"  {line}" for line in receipt_lines(event["receipt"]))
            yield from _kernels_of(event)
        case "prune":
            yield from _kernels_of(event)
        case "release":
            yield f"let all {event['units']} return"
        case "snapshot":
            yield "took a snapshot"
        case "rewind":
            kept = ", weights kept" if "weights" in event else ""
            yield f"rewound to step {event['position']}{kept}"
