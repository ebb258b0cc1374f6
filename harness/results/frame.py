"""A results folder as a pandas frame, and the documentation of all keys of a record.

A column is named like its place in the record, such as ``cost.step_ms``, and is in the record's
unit. `columns` lists the columns that every frame has. There is a further column for each further
metric, setting, override or version that occurs in a record: ``quality.further.cross_entropy``,
``settings.width``, ``spec.overrides.width``. Lists (``events``, ``sparsity.per_layer``) have none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, is_typeddict

from harness.errors import RequestError, warn
from harness.record import Field, Record, typed_fields
from harness.results.measured import with_measurement
from harness.storage.store import Store

if TYPE_CHECKING:
    import pandas as pd


def read_results(folder: Path | str, *, failed: bool = True) -> pd.DataFrame:
    """Return a frame with a row for each run of a results folder, ordered by name.

    A number is NaN where the record has null or lacks it. Records that cannot be read are left
    out, with a warning on standard error.

    Args:
        folder: the results folder.
        failed: whether runs whose last attempt failed are included; they have no results.

    Raises:
        RequestError: the folder does not exist or cannot be read.
    """
    import pandas as pd

    if not Path(folder).is_dir():
        raise RequestError(f"results folder {folder} does not exist")
    rows = [dict(leaves(record, "")) for record in _records(Store(Path(folder)), failed)]
    known = columns()
    objects = {key.place for key in keys() if not key.is_column}
    found = [name for row in rows for name in row if name not in objects]
    names = dict.fromkeys([*(key.place for key in known), *found])
    frame = pd.DataFrame(rows, columns=list(names))
    numbers = [key.place for key in known if key.is_number]
    frame[numbers] = frame[numbers].apply(pd.to_numeric)
    return frame


def _records(store: Store, failed: bool) -> Iterator[Record]:
    for run_id in store.folders():
        try:
            record = store.record(run_id) or (store.failure(run_id) if failed else None)
        except RequestError as error:
            warn(str(error))
        else:
            if record is not None:
                yield with_measurement(record, store.folder / run_id)


def leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Iterate over the values in a part of a record that are neither object nor list.

    Args:
        value: the part.
        place: where it is in the record; empty for the whole record.

    Yields:
        The place of each value, as in ``cost.step_ms``, and the value.
    """
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from leaves(inner, f"{place}.{name}" if place else name)
    elif not isinstance(value, list):
        yield place, value


@dataclass(frozen=True)
class Key:
    """A key of a record.

    Attributes:
        place: where it is, as in ``cost.step_ms``, ``events[].verb`` or ``cost.load.KEY.before``.
        kind: the type of its values, in words.
        field: what it means.
        is_number: whether its values are numbers.
        is_column: whether every frame has a column for it.
    """

    place: str
    kind: str
    field: Field
    is_number: bool
    is_column: bool


def columns() -> list[Key]:
    """Return the keys for which every frame has a column, in its order."""
    return [key for key in keys() if key.is_column]


def keys(part: Any = Record, place: str = "", *, is_column: bool = True) -> Iterator[Key]:
    """Iterate over all keys of a record, or of a part of it.

    Args:
        part: one of the types of `harness.record`.
        place: what the names of its keys begin with.
        is_column: whether its keys may have columns.
    """
    for name, (kind, field) in typed_fields(part).items():
        inner = list(_inner(kind))
        is_object = bool(inner) or _is(kind, list) or _is(kind, dict)
        own = is_column and not is_object
        yield Key(f"{place}{name}", _in_words(kind), field, _is(kind, int), own)
        for each, suffix in inner:
            yield from keys(each, f"{place}{name}{suffix}.", is_column=is_column and not suffix)


def markdown(listed: Iterator[Key] | None = None) -> str:
    """Return a table of keys in Markdown, for the documentation.

    Args:
        listed: the keys; all keys of a record by default.
    """
    lines = ["| Key | Type | Unit | Meaning |", "| --- | --- | --- | --- |"]
    lines += [
        f"| `{key.place}` | {key.kind} | {key.field.unit} | {key.field.meaning} |"
        for key in listed or keys()
    ]
    return "\n".join(lines) + "\n"


def _members(kind: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the only one of another type."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _is(kind: Any, wanted: type) -> bool:
    """Return whether values of a type are, if not null, of the wanted type."""
    given = [get_origin(each) or each for each in _members(kind)]
    return wanted in given and str not in given


def _inner(kind: Any) -> Iterator[tuple[Any, str]]:
    """Iterate over the types with keys within a type, each with what stands for its place."""
    for member in _members(kind):
        items = get_args(member)
        if is_typeddict(member):
            yield member, ""
        elif get_origin(member) is list and is_typeddict(items[0]):
            yield items[0], "[]"
        elif get_origin(member) is dict and is_typeddict(items[1]):
            yield items[1], ".KEY"


_WORDS: Mapping[Any, str] = {
    int: "whole number",
    float: "number",
    str: "string",
    bool: "boolean",
    NoneType: "null",
    Any: "any",
    list: "list",
    dict: "object",
}


def _in_words(kind: Any) -> str:
    members = _members(kind)
    if float in members:
        members = tuple(member for member in members if member is not int)
    return " or ".join(_word(member) for member in members)


def _word(member: Any) -> str:
    if get_origin(member) is Literal:
        return ", ".join(get_args(member))
    return "object" if is_typeddict(member) else _WORDS[get_origin(member) or member]
