"""Numbers, columns and tables as text for people."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

WIDTH = 100
"""The longest line, in characters."""


def number(value: float | None) -> str:
    """Return four digits of a number, a dash where there is none."""
    return "-" if value is None else f"{value:.4g}"


def percent(fraction: float) -> str:
    """Return a fraction in percent."""
    return f"{100 * fraction:.6g} %"


def size(value: float | None) -> str:
    """Return a number of bytes with a unit."""
    if value is None:
        return "-"
    scaled = float(value)
    for unit in ("B", "kB", "MB"):
        if abs(scaled) < 1000:
            return f"{scaled:.3g} {unit}"
        scaled /= 1000
    return f"{scaled:.3g} GB"


def count(value: float | None) -> str:
    """Return a whole number with separators, a dash where there is none."""
    return "-" if value is None else f"{value:,}"


def several(amount: float, noun: str) -> str:
    """Return an amount of something, in the singular or the plural."""
    return f"{amount:,g} {noun}" if amount == 1 else f"{amount:,g} {noun}s"


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as text in columns aligned to the left, the last of which is wrapped."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    lines = []
    for *cells, last in rows:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        head = "".join(f"{cell}  " for cell in ("", *padded))
        lines.append(
            textwrap.fill(last, WIDTH, initial_indent=head, subsequent_indent=" " * len(head))
        )
    return "\n".join(lines)


def table(rows: Iterable[Sequence[str]], left: int = 0) -> str:
    """Return rows as text in columns, aligned to the right but for the first few.

    The last cell of a row that is shorter than the first row is text and has no column.
    """
    rows = list(rows)
    columns = len(rows[0])
    whole = [row for row in rows if len(row) == columns]
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        if len(row) < columns:
            cells[len(row) - 1] = row[-1]
        lines.append(f"  {'  '.join(cells)}".rstrip())
    return "\n".join(lines)
