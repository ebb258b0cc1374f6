"""What is wrong with a record that somebody edited, or that another program wrote.

Whatever reads a record reads it through the store, which refuses a damaged one with the reason.
So readers need not look whether a key that is required here exists, and has the right type.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import PurePath
from types import UnionType
from typing import Any, get_args

from harness.storage import files

Shape = type | UnionType | tuple[str, ...] | list["Shape"] | Mapping[str, "Shape"]
"""A type; words; what a list is of; or the keys of an object, where "*" is any other key, and one
with a question mark may be absent. True and false are no numbers."""

NUMBER = int | float | None
TEXT = str | None

LAYER: Shape = {"name": str, "shape": [int], "weights": int, "kept": int}

KERNEL: Shape = {
    **dict.fromkeys(("change?", "alignment?", "drift?"), NUMBER),
    "*": object,
}
"""Of an epoch or a pruning."""

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
    "kernel?": KERNEL,
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
    "kernel?": KERNEL,
}

OF_VERBS: Mapping[str, Shape] = {
    "train": {"ended_by": str, "epochs": [object]},
    "prune": {"units": str, "target": int | float},
    "rewind": {"position": int},
}
"""What an event has besides, by its verb."""

RECORD: Shape = {
    "schema": int,
    "engine?": int,
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
        "disturbed?": {"*": object},
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
    if (found := _of_record(record)) is not None:
        return _in_words(found)
    if not _names_a_folder(record["run_id"]):
        return f"run_id is {_shown(record['run_id'])}, which cannot be the name of a folder"
    if record["status"] in ENDED and (found := _of_result(record)) is not None:
        return _in_words(found)
    for number, event in enumerate(record["events"]):
        check = _of_verbs.get(event["verb"])
        if check is not None and (found := check(event)) is not None:
            return _in_words((f".events[{number}]{found[0]}", found[1]))
    return None


def misshapen(value: Any, shape: Shape) -> str | None:
    """Return the first thing that is wrong with a value from a file, None if nothing is."""
    found = _check(shape)(value)
    return None if found is None else _in_words(found)


Damage = tuple[str, str]
"""Where something is wrong, as in ``.quality.test``, and what."""

Check = Callable[[Any], Damage | None]


def _check(shape: Shape) -> Check:
    """Return what looks for the first damage: made once for each shape, because records are many.

    Places are only put into words on the way back.
    """
    match shape:
        case Mapping():
            return _check_of_object(shape)
        case list():
            return _check_of_list(shape[0])
        case tuple():
            return _check_of_words(shape)
    accepted, accepts_all = _types(shape), shape is object

    def check(value: Any) -> Damage | None:
        if accepts_all or type(value) in accepted:
            return None
        return "", f"is {_shown(value)}"

    return check


def _types(shape: Shape) -> frozenset[type]:
    """Return the types of a single value, none of anything else: for a first look at it."""
    if isinstance(shape, UnionType):
        return frozenset(get_args(shape))
    return frozenset([shape]) if isinstance(shape, type) else frozenset()


def _check_of_words(words: tuple[str, ...]) -> Check:
    def check(value: Any) -> Damage | None:
        is_one = isinstance(value, str) and value in words
        return None if is_one else ("", f"is {_shown(value)}")

    return check


def _check_of_list(shape: Shape) -> Check:
    inner, types = _check(shape), _types(shape)

    def check(value: Any) -> Damage | None:
        if not isinstance(value, list):
            return "", "is no list"
        for number, each in enumerate(value):
            if type(each) not in types and (found := inner(each)) is not None:
                return f"[{number}]{found[0]}", found[1]
        return None

    return check


def _check_of_object(shape: Mapping[str, Shape]) -> Check:
    named = {
        key.removesuffix("?"): (_types(inner), _check(inner), not key.endswith("?"))
        for key, inner in shape.items()
        if key != "*"
    }
    rest = _check(shape["*"]) if "*" in shape else None

    def check(value: Any) -> Damage | None:
        if not isinstance(value, dict):
            return "", "is no object"
        for name, (types, inner, is_required) in named.items():
            if name in value:
                each = value[name]
                if type(each) not in types and (found := inner(each)) is not None:
                    return f".{name}{found[0]}", found[1]
            elif is_required:
                return f".{name}", "is missing"
        if rest is not None:
            for name, each in value.items():
                if name not in named and (found := rest(each)) is not None:
                    return f".{name}{found[0]}", found[1]
        return None

    return check


_of_record, _of_result = _check(RECORD), _check(RESULT)
_of_verbs = {verb: _check(shape) for verb, shape in OF_VERBS.items()}


def _in_words(found: Damage) -> str:
    place, what = found
    return f"{place.removeprefix('.') or 'it'} {what}"


def _names_a_folder(name: str) -> bool:
    is_one_part = PurePath(name).name == name and name not in ("", "..")
    return is_one_part and "\0" not in name and len(os.fsencode(name)) <= files.LONGEST_NAME


def _shown(value: Any) -> str:
    """Return a value as JSON calls it, shortened."""
    match value:
        case None:
            return "null"
        case dict():
            return "an object"
        case list():
            return "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
