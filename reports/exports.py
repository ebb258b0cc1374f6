"""Tables as files in CSV, Markdown and LaTeX, with names of plug-ins and the like escaped."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

from reports.data import NUMBER, Value, rows_of
from reports.tables import MINUS, NONE, Cell, Table, number

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
    header, rows = rows_of(table)
    return _csv(header, ([_in_cell(value) for value in row] for row in rows))


def _in_cell(value: Value) -> str:
    """Return a number in a form that every program reads, or a text."""
    return f"{value:.12g}" if isinstance(value, int | float) else value or ""


def runs_to_csv(header: Sequence[str], rows: Sequence[Sequence[Value]]) -> str:
    """Return the rows of `reports.data.rows_of_runs` as CSV.

    Numbers are written as in the record, true and false as words; a field is empty if the record
    has null or lacks it.
    """
    return _csv(header, ([_as_recorded(value) for value in row] for row in rows))


def _csv(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in (header, *rows):
        writer.writerow(map(as_field, row))
    return text.getvalue()


def _as_recorded(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)


def as_field(text: object) -> str:
    """Return a text that spreadsheets do not take for a formula."""
    field = "" if text is None else str(text)
    looks_like_one = field[:1] in ("=", "+", "-", "@", "\t", "\r", "\n")
    return f"'{field}" if looks_like_one and not NUMBER.fullmatch(field) else field


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
    alone = isinstance(cell.order, int | float) and "[" not in cell.text
    if alone and not detail and cell.low is not None and cell.high is not None:
        detail = f"{number(cell.low)} to {number(cell.high)}"
    text = f"{cell.symbol} {cell.text}" if cell.symbol else cell.text
    return f"{text} ({detail})" if detail else text
