"""Numbers, lists and tables formatted as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

WIDTH = 100
"""The longest line, in characters."""


def number(value: float | None) -> str:
    """Return a number with four significant digits; a dash for None."""
    return "-" if value is None else f"{value:.4g}"


def percent(fraction: float) -> str:
    """Return a fraction as a percentage."""
    return f"{100 * fraction:.6g} %"


def size(value: float | None) -> str:
    """Return a number of bytes with a decimal unit; a dash for None."""
    if value is None:
        return "-"
    scaled = float(value)
    for unit in ("B", "kB", "MB"):
        if abs(scaled) < 1000:
            return f"{scaled:.3g} {unit}"
        scaled /= 1000
    return f"{scaled:.3g} GB"


def count(value: float | None) -> str:
    """Return an integer with thousands separators; a dash for None."""
    return "-" if value is None else f"{value:,}"


def several(amount: float, noun: str) -> str:
    """Return an amount with its noun in the singular or plural, as in ``2 runs``."""
    return f"{amount:,g} {noun}" if amount == 1 else f"{amount:,g} {noun}s"


def duration(seconds: float) -> str:
    """Return a duration in the unit that suits it, as in ``12 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def epoch_of(epoch: int, budget: int) -> str:
    """Return an epoch within its budget, as in ``epoch 3/20``, or ``epoch 25 (budget: 20)``."""
    return f"epoch {epoch}" + (f"/{budget}" if epoch <= budget else f" (budget: {budget})")


def first_of(names: Iterable[str], most: int = 3) -> str:
    """Return the first few names and the number of the others, as in ``a, b, c and 4 more``."""
    listed = list(names)
    rest = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {rest} more" if rest > 0 else "")


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as left-aligned columns; the last column is wrapped at `WIDTH`."""
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
    """Return rows as right-aligned columns.

    Args:
        rows: the cells. If a row is shorter than the first one, its last cell is free text that
            belongs to no column.
        left: the number of columns that are left-aligned instead.
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


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown, with a line break at its end."""
    cells = (
        [cell.replace("|", "\\|") for cell in line] for line in (head, ["---"] * len(head), *rows)
    )
    text = (f"| {' | '.join(line)} |" for line in cells)
    return "\n".join(text) + "\n"
