"""Published tables beside ours."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reports.groups import Group, Section
from reports.tables import NONE, Block, Cell, Table, number, signed

PUBLISHED = Path(__file__).resolve().parent.parent / "benchmarks" / "published"


@dataclass(frozen=True)
class Beside:
    """A published table with our numbers, from one section or from none."""

    table: Table
    source: str
    comparable: bool
    """Whether ours was run with the published data and settings."""
    remark: str


def beside(sections: Sequence[Section], folder: Path = PUBLISHED) -> list[Beside]:
    """Return every published table, next to each section of its task at its sparsity."""
    described = tomllib.loads((folder / "tables.toml").read_text(encoding="utf-8"))["table"]
    made = []
    for description in described:
        with (folder / description["file"]).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        candidates = [s for s in sections if s.tested and s.task in description["tasks"]]
        if "rows" in description:
            made.append(_beside(description, rows, *_by_row(description, candidates)))
            continue
        homes: Sequence[Section | None] = candidates or [None]
        for section in homes:
            made.append(_beside(description, rows, section, _by_title(description, rows, section)))
    return made


def _by_title(
    description: Mapping[str, Any], rows: Sequence[Mapping[str, str]], section: Section | None
) -> list[Group | None]:
    """Return for each published row our group of the same title, at the table's sparsity."""
    groups = {
        group.title.casefold(): group
        for group in (section.groups if section else ())
        if group.kind == "dense" or abs(group.sparsity - description["sparsity"]) < 0.005
    }
    return [groups.get(row[description["name"]].casefold()) for row in rows]


def _by_row(
    description: Mapping[str, Any], sections: Sequence[Section]
) -> tuple[Section | None, list[Group | None]]:
    """Return for each published row the group of its method and settings, in any section."""
    found: list[Group | None] = []
    home: Section | None = None
    for row in description["rows"]:
        matching = [s for s in sections if set(row["settings"]) <= set(s.setting.split(", "))]
        titles = [
            (section, group)
            for section in matching
            for group in section.groups
            if group.title == row["method"]
            and (group.kind == "dense" or abs(group.sparsity - description["sparsity"]) < 0.005)
        ]
        found.append(titles[0][1] if titles else None)
        home = home or (titles[0][0] if titles else None)
    return home, found


def _beside(
    description: Mapping[str, Any],
    rows: Sequence[Mapping[str, str]],
    section: Section | None,
    groups: Sequence[Group | None],
) -> Beside:
    columns = description["columns"]
    blocks: dict[str, list[list[Cell]]] = {}
    for row, group in zip(rows, groups, strict=True):
        title = row[description["name"]]
        cells = [Cell(title, order=title)]
        for column in columns:
            cell, *ours = _three(row[column["published"]], group, column)
            cells += [cell, *(ours if section else [])]
        blocks.setdefault(row.get("group", "").capitalize(), []).append(cells)
    parts = (", talk", ", ours", ", difference") if section else ("",)
    header = [f"{column['title']}{part}" for column in columns for part in parts]
    comparable = section is not None and section.profile == "paper" and section.source == "official"
    return Beside(
        Table(
            slug=f"published-{description['slug']}{f'-{section.slug}' if section else ''}",
            title=description["title"] + (f" beside {section.name}" if section else ""),
            columns=["Method", *header],
            blocks=[Block(title, rows) for title, rows in blocks.items()],
            stamp=section.stamp if section else None,
            notes=description["notes"],
        ),
        source=description["source"],
        comparable=comparable,
        remark=_remark(section, comparable),
    )


def _remark(section: Section | None, comparable: bool) -> str:
    if section is None:
        return "None of its tasks was run, so there is nothing of ours to set beside it."
    if comparable:
        return "Ours was run with official data and the settings of the paper."
    return (
        "Ours was run with other data or settings: the difference is no failure to reproduce, "
        "and no success."
    )


def _three(published: str, group: Group | None, column: Mapping[str, Any]) -> list[Cell]:
    """Return the published number, ours, and the difference."""
    theirs = float(published) if published else None
    first = Cell(NONE, "not published") if theirs is None else Cell(published, order=theirs)
    interval = group.intervals.get(column["ours"]) if group else None
    if group is None or interval is None:
        why = group.reasons.get(column["ours"], "not measured") if group else "not run"
        return [first, Cell(NONE, why), Cell(NONE, why)]
    value = column.get("scale", 1.0) * interval.mean
    estimated = "~" if column["ours"] in group.estimated else ""
    ours = Cell(f"{estimated}{number(value)}", f"{interval.n} seeds", order=value)
    if theirs is None:
        return [first, ours, Cell(NONE, "not published")]
    return [first, ours, Cell(signed(value - theirs), order=value - theirs)]
