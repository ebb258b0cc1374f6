"""What is wrong with a record that somebody edited, or that another program wrote.

Whatever reads a record reads it through the store, which refuses a damaged one with the reason.
So readers need not look whether a key that is required here exists, and has the right type.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from types import UnionType
from typing import Any

from harness.durability import files

Shape = type | UnionType | tuple[str, ...] | list["Shape"] | Mapping[str, "Shape"]
"""A type; words; what a list is of; or the keys of an object, where "*" is any other key, and one
with a question mark may be absent. True and false are no numbers."""

NUMBER = int | float | None
TEXT = str | None

LAYER: Shape = {"name": str, "shape": [int], "weights": int, "kept": int}

COSTS = (
    *("train_seconds", "peak_run_bytes", "energy_kwh", "emissions_g"),
    *("step_ms", "inference_ms", "peak_step_bytes", "disk_bytes"),
    *("macs", "macs_effective", "parameters", "epochs", "steps"),
)
"""What every record of a run that came to its end has, as a number or, but for the last, null."""

EPOCH: Shape = {
    "spent": int,
    "loss": NUMBER,
    "validation": {"*": NUMBER},
    "trigger?": NUMBER,
    "threshold?": NUMBER,
    "kernel?": {"*": NUMBER},
}

EVENT: Shape = {
    "verb": str,
    "spent": int,
    "position?": int,
    "ended_by?": str,
    "epochs?": [EPOCH],
    "units?": str,
    "target?": int | float,
    "gradient_flow?": {"before": NUMBER, "after": NUMBER},
    "kernel?": {"before": {"*": NUMBER}, "after": {"*": NUMBER}},
}

OF_VERBS: Mapping[str, Shape] = {
    "train": {"ended_by": str, "epochs": [object]},
    "prune": {"units": str, "target": int | float},
    "rewind": {"position": int},
}
"""What an event has besides, by its verb."""

RECORD: Shape = {
    "schema": int,
    "run_id": str,
    "status": ("done", "collapsed", "diverged", "failed", "skipped", "missing"),
    "reason": TEXT,
    "spec": {
        "task": str,
        "pruner": str,
        "profile": str,
        "sparsity": int | float,
        "seed": int,
        "overrides": {"*": object},
    },
    "task": {"title": TEXT, "version": int | str},
    "pruner": {"title": TEXT, "version": int | str, "group": str},
    "data": {"source": TEXT, "name": TEXT, "sha256": TEXT},
    "settings": {"*": object},
    "quality": {
        "metric": str,
        "goal": ("max", "min"),
        "test": NUMBER,
        "validation": NUMBER,
        "baseline": NUMBER,
        "further": {"*": NUMBER},
    },
    "sparsity": {
        "requested?": NUMBER,
        "weights?": NUMBER,
        "nodes?": NUMBER,
        "effective?": NUMBER,
        "emptied_layers?": [str],
        "per_layer?": [LAYER],
    },
    "cost": {
        "reasons?": {"*": str},
        "energy_method?": TEXT,
        "energy_scope?": TEXT,
        **{f"{key}?": NUMBER for key in COSTS},
    },
    "events": [EVENT],
    "provenance": {
        "git?": {"commit": TEXT},
        "command?": TEXT,
        "started?": str,
        "device?": str,
        "threads?": int,
        "runs_on_device?": int,
        "versions?": {"*": TEXT},
        "resumed?": [object],
    },
}
"""What every record has."""

ENDED = ("done", "collapsed", "diverged")
"""How runs end that have a result."""

RESULT: Shape = {
    "data": {"source": str, "name": str, "sha256": str},
    "sparsity": {
        "requested": int | float,
        "weights": int | float,
        "effective": int | float,
        "emptied_layers": [str],
        "per_layer": [object],
    },
    "cost": {
        "reasons": {"*": str},
        **dict.fromkeys(COSTS, NUMBER),
        **dict.fromkeys(("epochs", "steps"), int | float),
    },
    "provenance": {"device": str, "threads": int, "resumed": [object]},
}
"""What the record of a run that came to its end has besides."""


def damage(record: Any) -> str | None:
    """Return the first thing that is wrong with a record, in words; None if nothing is."""
    return next(_damages_of_record(record), None)


def misshapen(value: Any, shape: Shape) -> str | None:
    """Return the first thing that is wrong with a value from a file, None if nothing is."""
    return next(_damages(value, shape, "it"), None)


def _damages_of_record(record: Any) -> Iterator[str]:
    # Each part may rely on those before it: a reader stops at the first damage.
    yield from _damages(record, RECORD, "it")
    run_id = record["run_id"]
    if not _names_a_folder(run_id):
        yield f"run_id is {_shown(run_id)}, which cannot be the name of a folder"
    if record["status"] in ENDED:
        yield from _damages(record, RESULT, "it")
    for number, event in enumerate(record["events"]):
        yield from _damages(event, OF_VERBS.get(event["verb"], {}), f"events[{number}]")


def _names_a_folder(name: str) -> bool:
    is_one_part = PurePath(name).name == name and name not in ("", "..")
    return is_one_part and "\0" not in name and len(os.fsencode(name)) <= files.LONGEST_NAME


def _damages(value: Any, shape: Shape, place: str) -> Iterator[str]:
    match shape:
        case Mapping():
            yield from _damages_of_object(value, shape, place)
        case list():
            if not isinstance(value, list):
                yield f"{place} is no list"
                return
            for number, each in enumerate(value):
                yield from _damages(each, shape[0], f"{place}[{number}]")
        case tuple():
            if not isinstance(value, str) or value not in shape:
                yield f"{place} is {_shown(value)}"
        case _:
            is_switch = isinstance(value, bool) and shape is not object
            if is_switch or not isinstance(value, shape):
                yield f"{place} is {_shown(value)}"


def _damages_of_object(value: Any, shape: Mapping[str, Shape], place: str) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield f"{place} is no object"
        return
    named = {key.removesuffix("?"): (inner, key) for key, inner in shape.items() if key != "*"}
    for name, (inner, key) in named.items():
        where = name if place == "it" else f"{place}.{name}"
        if name in value:
            yield from _damages(value[name], inner, where)
        elif name == key:
            yield f"{where} is missing"
    if "*" in shape:
        for name in value.keys() - named.keys():
            yield from _damages(value[name], shape["*"], f"{place}.{name}")


def _shown(value: Any) -> str:
    """Return a value as JSON calls it, shortened."""
    match value:
        case None:
            return "null"
        case Mapping():
            return "an object"
        case list():
            return "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
