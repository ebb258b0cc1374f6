"""Tables as files in CSV, Markdown and LaTeX, with names of plug-ins and the like escaped."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, cast

from harness.record import Record
from harness.results.frame import leaves
from reports.provenance import without_paths
from reports.tables import MINUS, NONE, Cell, Table, number

_NUMBER = re.compile(r"[+-]?[\d,]*\.?\d+(e[+-]?\d+)?")

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    MINUS: "$-$",
    "\N{NO-BREAK SPACE}": "~",
    NONE: "--",
    "\N{BLACK UP-POINTING TRIANGLE}": r"$\blacktriangle$",
    "\N{BLACK DOWN-POINTING TRIANGLE}": r"$\blacktriangledown$",
    "\N{ALMOST EQUAL TO}": r"$\approx$",
    "\N{WHITE CIRCLE}": r"$\circ$",
    "\N{BULLET}": r"$\bullet$",
    "\N{BLACK SQUARE}": r"$\blacksquare$",
    "\N{INFINITY}": r"$\infty$",
    "\N{MULTIPLICATION X}": r"$\times$",
    "\N{EMPTY SET}": r"$\emptyset$",
    "\N{MIDDLE DOT}": r"$\cdot$",
    "\N{HORIZONTAL ELLIPSIS}": r"\ldots{}",
}


def to_csv(table: Table) -> str:
    """Return a table as CSV.

    A number has no separators of thousands; its field is empty if it is not known. The ends of its
    interval, and remarks on it, have columns of their own.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
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
    stamp = [table.stamp] if table.stamp else []
    writer.writerow(map(as_field, ["Block", *header, *(["Stamp"] if stamp else [])]))
    for block in table.blocks:
        for row in block.rows:
            fields = [
                field
                for cell, has_ends, has_remarks in zip(row, ends, remarks, strict=True)
                for field in (
                    _value(cell),
                    *([_plain(cell.low), _plain(cell.high)] if has_ends else []),
                    *([_remark(cell)] if has_remarks else []),
                )
            ]
            plain = [field.replace(MINUS, "-") for field in fields]
            writer.writerow(map(as_field, [block.title, *plain, *stamp]))
    return text.getvalue()


def _is_number(cell: Cell) -> bool:
    return isinstance(cell.order, int | float)


def _value(cell: Cell) -> str:
    if isinstance(cell.order, int | float):
        return _plain(cell.order)
    return "" if cell.text == NONE else cell.text


def _remark(cell: Cell) -> str:
    """Return what a cell says in addition to its number, or why it has none."""
    if not _is_number(cell):
        said = cell.detail or (cell.note if cell.text == NONE else "")
    elif cell.text.startswith("~"):
        said = "estimated"
    elif cell.state or cell.low is None:
        said = cell.detail
        if not said and not _NUMBER.fullmatch(cell.text.replace(MINUS, "-")):
            said = cell.text
    else:
        said = ""
    return f"{cell.state} ({said})" if cell.state and said else cell.state or said


def _plain(value: float | None) -> str:
    """Return a number in a form that every program reads."""
    return "" if value is None else f"{value:.12g}"


PARTS = ("spec", "task", "pruner", "data", "quality", "sparsity", "cost", "provenance")
"""The parts of a record that `runs_to_csv` has columns for, in this order."""


def runs_to_csv(records: Mapping[str, Record], counted: Collection[str]) -> str:
    """Return a row for each run as CSV, whatever its status.

    A column is named like its place in the run's ``record.json``, such as ``cost.step_ms``, and is
    in the record's unit (`harness.results.frame.columns`). Numbers are written as in the record,
    true and false as words; a field is empty if the record has null or lacks it. Lists
    (``events``, ``sparsity.per_layer``) and the folders of files are left out; the overrides are
    one JSON object. The column ``counted`` says whether the report uses the run.

    Args:
        records: the records, by run.
        counted: the runs that the report uses.
    """
    rows = [
        {
            "run_id": run_id,
            "status": record["status"],
            "reason": without_paths(record["reason"] or ""),
            "counted": run_id in counted,
            **{name: value for part in PARTS for name, value in _columns(part, record)},
        }
        for run_id, record in sorted(records.items())
    ]
    columns = dict.fromkeys(name for row in rows for name in row)
    order = ["run_id", "status", "reason", "counted"]
    order += [name for part in PARTS for name in columns if name.startswith(f"{part}.")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(order)
    for row in rows:
        writer.writerow([as_field(_as_recorded(row.get(name))) for name in order])
    return text.getvalue()


def _columns(part: str, record: Record) -> Iterator[tuple[str, Any]]:
    overrides = record["spec"]["overrides"]
    for place, value in leaves(cast(Mapping[str, Any], record).get(part), part):
        if not place.startswith("spec.overrides."):
            yield place, value
    if part == "spec":
        yield "spec.overrides", json.dumps(overrides, sort_keys=True) if overrides else None


def _as_recorded(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else without_paths(str(value))


def as_field(text: object) -> str:
    """Return a text that spreadsheets do not take for a formula."""
    field = "" if text is None else str(text)
    looks_like_one = field[:1] in ("=", "+", "-", "@", "\t", "\r", "\n")
    return f"'{field}" if looks_like_one and not _NUMBER.fullmatch(field) else field


def to_markdown(table: Table) -> str:
    """Return a table in Markdown, with the best in bold."""
    lines = [f"**{_markdown(table.title)}**", ""]
    lines += [f"{_markdown(table.stamp)}", ""] if table.stamp else []
    lines.append(_markdown_row(map(_markdown, table.columns)))
    lines.append(_markdown_row(["---", *["---:"] * (len(table.columns) - 1)]))
    for block in table.blocks:
        if block.title:
            title = f"*{_markdown(block.title)}*"
            lines.append(_markdown_row([title, *[""] * (len(table.columns) - 1)]))
        for row in block.rows:
            lines.append(_markdown_row(map(_markdown_cell, row)))
    lines += [line for note in table.notes for line in ("", _markdown(note))]
    return "\n".join(lines) + "\n"


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cell(cell: Cell) -> str:
    text = _markdown(_in_full(cell))
    return f"**{text}**" if cell.rank == "best" else text


def _markdown(text: str) -> str:
    """Return a text with all markup of Markdown escaped."""
    escaped = re.sub(r"([\\`*_\[\]|#~])", r"\\\1", " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def to_latex(table: Table) -> str:
    """Return a table in LaTeX (booktabs, amssymb), with the best in bold."""
    lines = [
        r"% \usepackage{booktabs,amssymb}",
        r"\begin{table}",
        rf"\caption{{{_latex(table.title)}{_latex(f'. {table.stamp}' if table.stamp else '')}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
        r"\toprule",
        _latex_row(map(_latex, table.columns)),
    ]
    for block in table.blocks:
        lines.append(r"\midrule")
        if block.title:
            title = rf"\emph{{{_latex(block.title)}}}"
            lines.append(rf"\multicolumn{{{len(table.columns)}}}{{l}}{{{title}}} \\")
        lines += [_latex_row(map(_latex_cell, row)) for row in block.rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par {{\footnotesize {_latex(note)}}}" for note in table.notes]
    lines.append(r"\end{table}")
    return "\n".join(lines) + "\n"


def _latex_row(cells: Iterable[str]) -> str:
    return rf"{' & '.join(cells)} \\"


def _latex_cell(cell: Cell) -> str:
    text = _latex(_in_full(cell))
    if cell.rank == "best":
        return rf"\textbf{{{text}}}"
    return text


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def _in_full(cell: Cell) -> str:
    """Return the text of a cell with its symbol and its interval."""
    detail = cell.detail
    alone = _is_number(cell) and "[" not in cell.text
    if alone and not detail and cell.low is not None and cell.high is not None:
        detail = f"{number(cell.low)} to {number(cell.high)}"
    text = f"{cell.symbol} {cell.text}" if cell.symbol else cell.text
    return f"{text} ({detail})" if detail else text
