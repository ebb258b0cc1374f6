"""What is wrong with a record that somebody has edited, or that something else has written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any

from reports.quantities import COSTS

Shape = type | UnionType | tuple[str, ...] | list["Shape"] | Mapping[str, "Shape"]
"""A type; words; what a list is of; or the keys of an object, where "*" is any other key, and one
with a question mark may be absent."""

NUMBER = int | float | None
TEXT = str | None

LAYER: Shape = {"name": str, "shape": [int], "weights": int, "kept": int}

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
    "ended_by?": str,
    "epochs?": [EPOCH],
    "target?": int | float,
    "gradient_flow?": {"before": NUMBER, "after": NUMBER},
    "kernel?": {"before": {"*": NUMBER}, "after": {"*": NUMBER}},
}

RECORD: Shape = {
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
    "data": {"source": TEXT, "name": TEXT, "sha256": TEXT, "stands_in_for?": TEXT},
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
        "weights?": NUMBER,
        "nodes?": NUMBER,
        "effective?": NUMBER,
        "per_layer?": [LAYER],
    },
    "cost": {
        "reasons?": {"*": str},
        "energy_method?": TEXT,
        "disturbed?": {"*": object},
        **{f"{key}?": NUMBER for key in (*COSTS, "steps")},
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
    },
}
"""What a report reads of a record."""


def damage(value: Any, shape: Shape = RECORD, place: str = "it") -> str | None:
    """Return the first thing that is not as it has to be, in words; None if all is well."""
    return next(_damages(value, shape, place), None)


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
            if value not in shape:
                yield f"{place} is {value!r}"
        case _:
            if not isinstance(value, shape):
                yield f"{place} is {value!r}"


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
