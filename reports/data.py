"""Tables and runs as data, without their typography: for CSV, and as files in JSON and Parquet."""

from __future__ import annotations

import importlib.util
import io
import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from harness.errors import RequestError, nearest
from harness.record import Record
from harness.results.frame import leaves
from reports.provenance import without_paths
from reports.tables import MINUS, NONE, Cell, Table

if TYPE_CHECKING:
    import pandas as pd

Value = str | float | bool | None

FORMATS = ("json", "parquet")
"""What ``report --format`` takes; each is also the ending of its files."""

NUMBER = re.compile(r"[+-]?[\d,]*\.?\d+(e[+-]?\d+)?")
"""A number as it is written in a cell."""

PARTS = ("spec", "task", "pruner", "data", "quality", "sparsity", "cost", "provenance")
"""The parts of a record that a row of a run has columns for, in this order."""


def require_formats(formats: Collection[str]) -> None:
    """Check that a report can be written in these formats.

    Raises:
        RequestError: one is not known, or needs a package that is not installed.
    """
    for each in formats:
        if each not in FORMATS:
            raise RequestError(f"unknown format {each!r} of a report{nearest(each, FORMATS)}")
        if each == "parquet" and importlib.util.find_spec("pyarrow") is None:
            raise RequestError(
                "the format 'parquet' of a report: pyarrow is not installed; "
                "pip install 'pruning-benchmark[parquet]' installs it"
            )


def rows_of(table: Table) -> tuple[list[str], list[list[Value]]]:
    """Return the header and the rows of a table; what is not known is None.

    The ends of intervals, and remarks on numbers, have columns of their own.
    """
    rows = [row for block in table.blocks for row in block.rows]
    columns = [[row[place] for row in rows] for place in range(len(table.columns))]
    ends = [any(cell.low is not None for cell in column) for column in columns]
    remarks = [any(_remark(cell) for cell in column) for column in columns]
    header = [
        name
        for column, has_ends, has_remarks in zip(table.columns, ends, remarks, strict=True)
        for name in (
            column,
            *([f"{column}: low", f"{column}: high"] if has_ends else []),
            *([f"{column}: remark"] if has_remarks else []),
        )
    ]
    filled = [
        [
            block.title,
            *(
                field
                for cell, has_ends, has_remarks in zip(row, ends, remarks, strict=True)
                for field in (
                    _value(cell),
                    *([cell.low, cell.high] if has_ends else []),
                    *([_plain(_remark(cell))] if has_remarks else []),
                )
            ),
            *([table.stamp] if table.stamp else []),
        ]
        for block in table.blocks
        for row in block.rows
    ]
    return ["Block", *header, *(["Stamp"] if table.stamp else [])], filled


def _is_number(cell: Cell) -> bool:
    return isinstance(cell.order, int | float)


def _value(cell: Cell) -> Value:
    if isinstance(cell.order, int | float):
        return cell.order
    return None if cell.text == NONE else _plain(cell.text)


def _plain(text: str) -> str | None:
    return text.replace(MINUS, "-") or None


def _remark(cell: Cell) -> str:
    """Return what a cell says in addition to its number, or why it has none."""
    if not _is_number(cell):
        said = cell.detail or (cell.note if cell.text == NONE else "")
    elif cell.text.startswith("~"):
        said = "estimated"
    elif cell.state or cell.low is None:
        said = cell.detail
        if not said and not NUMBER.fullmatch(cell.text.replace(MINUS, "-")):
            said = cell.text
    else:
        said = ""
    return f"{cell.state} ({said})" if cell.state and said else cell.state or said


def rows_of_runs(
    records: Mapping[str, Record], counted: Collection[str]
) -> tuple[list[str], list[list[Value]]]:
    """Return the header and a row for each run, whatever its status.

    A column is named like its place in the run's ``record.json``, such as ``cost.step_ms``, and is
    in the record's unit (`harness.results.frame.columns`). A value is None if the record has null
    or lacks it. Lists (``events``, ``sparsity.per_layer``) and the folders of files are left out;
    the overrides are one JSON object. The column ``counted`` says whether the report uses the run.

    Args:
        records: the records, by run.
        counted: the runs that the report uses.
    """
    rows = [
        {
            "run_id": run_id,
            "status": record["status"],
            "reason": without_paths(record["reason"] or "") or None,
            "counted": run_id in counted,
            **{name: value for part in PARTS for name, value in _columns(part, record)},
        }
        for run_id, record in sorted(records.items())
    ]
    columns = dict.fromkeys(name for row in rows for name in row)
    header = ["run_id", "status", "reason", "counted"]
    header += [name for part in PARTS for name in columns if name.startswith(f"{part}.")]
    return header, [[row.get(name) for name in header] for row in rows]


def _columns(part: str, record: Record) -> Iterator[tuple[str, Value]]:
    overrides = record["spec"]["overrides"]
    for place, value in leaves(cast(Mapping[str, Any], record).get(part), part):
        if not place.startswith("spec.overrides."):
            yield place, without_paths(value) if isinstance(value, str) else value
    if part == "spec":
        yield "spec.overrides", json.dumps(overrides, sort_keys=True) if overrides else None


def table_to_json(table: Table) -> bytes:
    """Return a table as a JSON object: its title, stamp and notes, and an object for each row."""
    content = {"title": table.title, "stamp": table.stamp, "notes": list(table.notes)}
    return _json({**content, "rows": _objects(*rows_of(table))})


def to_json(header: Sequence[str], rows: Sequence[Sequence[Value]]) -> bytes:
    """Return rows as a JSON array of objects."""
    return _json(_objects(header, rows))


def _objects(header: Sequence[str], rows: Sequence[Sequence[Value]]) -> list[dict[str, Value]]:
    return [dict(zip(header, map(_finite, row), strict=True)) for row in rows]


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _finite(value: Value) -> Value:
    """Return a value that JSON can express: None in place of infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_parquet(header: Sequence[str], rows: Sequence[Sequence[Value]]) -> bytes:
    """Return rows as a Parquet file, in which each column has one type.

    Texts among the numbers of a column, such as ``collapsed``, have a column of their own.
    """
    file = io.BytesIO()
    _frame(header, rows).to_parquet(file, engine="pyarrow", index=False)
    return file.getvalue()


def _frame(header: Sequence[str], rows: Sequence[Sequence[Value]]) -> pd.DataFrame:
    import pandas as pd

    columns: dict[str, Sequence[Value]] = {}
    for place, name in enumerate(header):
        column = [row[place] for row in rows]
        texts = [value if isinstance(value, str) else None for value in column]
        others = _of_one_type([None if isinstance(value, str) else value for value in column])
        has_others = any(value is not None for value in others)
        if has_others:
            columns[name] = others
        if any(value is not None for value in texts) or not has_others:
            columns[f"{name}: text" if has_others else name] = texts
    return pd.DataFrame(columns).convert_dtypes()


LARGEST = 2**63 - 1
"""The largest whole number of a Parquet file."""


def _of_one_type(values: Sequence[float | bool | None]) -> list[float | bool | None]:
    """Return numbers and truth values as numbers if there are both; what is too large is None."""
    fitting = [
        None if isinstance(value, int) and abs(value) > LARGEST else value for value in values
    ]
    if all(isinstance(value, bool | None) for value in fitting):
        return fitting
    return [int(value) if isinstance(value, bool) else value for value in fitting]
