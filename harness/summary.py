"""A record in a few lines, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Record = Mapping[str, Any]


def summarise(record: Record) -> str:
    """Return the outcome of a run in a few lines."""
    return "\n".join([_headline(record), *(f"  {name:<16}{text}" for name, text in _rows(record))])


def _headline(record: Record) -> str:
    reason = f": {record['reason']}" if record["reason"] else ""
    stamp = " [SYNTHETIC data]" if record["data"]["source"] == "synthetic" else ""
    return f"{record['run_id']}  {record['status']}{reason}{stamp}"


def _rows(record: Record) -> Iterator[tuple[str, str]]:
    quality, sparsity, cost = record["quality"], record["sparsity"], record["cost"]
    better = "higher is better" if quality["goal"] == "max" else "lower is better"
    yield (
        quality["metric"],
        f"{number(quality['test'])} test, {number(quality['validation'])} validation; "
        f"ignoring the input gives {number(quality['baseline'])} ({better})",
    )
    yield "data", f"{record['data']['name']} ({record['data']['source']})"
    yield (
        "weights removed",
        f"{sparsity['weights']:.4%} of {sum(x['weights'] for x in sparsity['per_layer']):,} "
        f"({sparsity['requested']:.4%} asked for; {sparsity['effective']:.4%} without effect)",
    )
    for event in record["events"]:
        if event["verb"] == "prune":
            yield "pruned", _pruning(event, record)
    yield (
        "training",
        f"{cost['epochs']:g} epochs, {cost['steps']} steps in {number(cost['train_seconds'])} s, "
        f"peak memory {size(cost['peak_run_bytes'])}, energy {_energy(cost)}",
    )
    yield (
        "final network",
        f"training step {number(cost['step_ms'])} ms, inference {number(cost['inference_ms'])} ms "
        f"a batch, {size(cost['peak_step_bytes'])} for a step, {size(cost['disk_bytes'])} on disk",
    )
    yield (
        "operations",
        f"{count(cost['macs'])} multiply-accumulates a sample "
        f"({count(cost['macs_effective'])} by weights that are left; not a speed-up), "
        f"{count(cost['parameters'])} parameters",
    )
    environment = record["provenance"]
    yield "measured on", f"{environment['device']}, {environment['threads']} threads"


def _pruning(event: Mapping[str, Any], record: Record) -> str:
    steps_per_epoch = record["cost"]["steps"] / record["cost"]["epochs"]
    flow = event["gradient_flow"]
    return (
        f"to {event['target']:.4%} after {event['position'] / steps_per_epoch:g} epochs; "
        f"gradient flow {number(flow['before'])} -> {number(flow['after'])}"
    )


def _energy(cost: Mapping[str, Any]) -> str:
    if cost["energy_kwh"] is None:
        return "not measured"
    return (
        f"{cost['energy_kwh'] * 1000:.3g} Wh, {cost['emissions_g']:.3g} g CO2e "
        f"({cost['energy_method']})"
    )


def summarise_events(record: Record) -> str:
    """Return what happened, a line for each epoch and verb."""
    lines = []
    metric = record["quality"]["metric"]
    for event in record["events"]:
        for epoch in event.get("epochs", ()):
            lines.append(
                f"  step {epoch['position']:>6}  loss {epoch['loss']:<10.4g} "
                f"validation {metric} {number(epoch['validation'][metric])}"
                + (f"  trigger {number(epoch['trigger'])}" if "trigger" in epoch else "")
            )
        ended = f", ended by the {event['ended_by']}" if "ended_by" in event else ""
        lines.append(f"  step {event['position']:>6}  {event['verb']}{ended}")
    return "\n".join(lines)


def number(value: float | None) -> str:
    """Return four digits of a number, a dash where there is none."""
    return "-" if value is None else f"{value:.4g}"


def size(value: int | None) -> str:
    """Return a number of bytes with a unit."""
    if value is None:
        return "-"
    scaled = float(value)
    for unit in ("B", "kB", "MB"):
        if abs(scaled) < 1000:
            return f"{scaled:.3g} {unit}"
        scaled /= 1000
    return f"{scaled:.3g} GB"


def count(value: int | None) -> str:
    """Return a whole number with separators, a dash where there is none."""
    return "-" if value is None else f"{value:,}"
