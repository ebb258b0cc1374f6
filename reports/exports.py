"""Tables as files: CSV, Markdown and LaTeX, safe to open whatever a plug-in is called."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable

from reports.tables import MINUS, NONE, Cell, Table

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
    """Return a table as CSV: numbers by themselves, and what is said of them beside them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    rows = [row for block in table.blocks for row in block.rows]
    detailed = [
        any(row[place].detail or row[place].state for row in rows)
        for place in range(len(table.columns))
    ]
    stamp = [table.stamp] if table.stamp else []
    header = [
        name
        for column, more in zip(table.columns, detailed, strict=True)
        for name in (column, *([f"{column}: interval or remark"] if more else []))
    ]
    writer.writerow(map(as_field, ["Block", *header, *(["Stamp"] if stamp else [])]))
    for block in table.blocks:
        for row in block.rows:
            fields = [
                field
                for cell, more in zip(row, detailed, strict=True)
                for field in (cell.text, *([_remark(cell)] if more else []))
            ]
            plain = [field.replace(MINUS, "-") for field in fields]
            writer.writerow(map(as_field, [block.title, *plain, *stamp]))
    return text.getvalue()


def _remark(cell: Cell) -> str:
    detail = f"({cell.detail})" if cell.detail else ""
    return f"{cell.state} {detail}".strip()


def as_field(text: object) -> str:
    """Return a text that no spreadsheet takes for a formula."""
    field = "" if text is None else str(text)
    looks_like_one = field[:1] in ("=", "+", "-", "@", "\t", "\r", "\n")
    return f"'{field}" if looks_like_one and not _NUMBER.fullmatch(field) else field


def to_markdown(table: Table) -> str:
    """Return a table in Markdown, the best bold and the second underlined."""
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
    return {"best": f"**{text}**", "second": f"<u>{text}</u>"}.get(cell.rank or "", text)


def _markdown(text: str) -> str:
    """Return a text that Markdown shows as it is."""
    escaped = re.sub(r"([\\`*_\[\]|#~])", r"\\\1", " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def to_latex(table: Table) -> str:
    """Return a table in LaTeX (booktabs, amssymb), the best bold and the second underlined."""
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
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _latex_row(cells: Iterable[str]) -> str:
    return rf"{' & '.join(cells)} \\"


def _latex_cell(cell: Cell) -> str:
    text = _latex(_in_full(cell))
    if cell.rank == "best":
        return rf"\textbf{{{text}}}"
    return rf"\underline{{{text}}}" if cell.rank == "second" else text


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def _in_full(cell: Cell) -> str:
    """Return all that a cell says; its symbol where that is more than the text."""
    detail = f" ({cell.detail})" if cell.detail else ""
    return f"{cell.symbol} {cell.text}{detail}" if cell.symbol else cell.text
