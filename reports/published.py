"""Published tables next to our numbers.

They are those of the paper on EarlyCroP (Rachwan et al., ICML 2022, arXiv:2206.10451), one of SNIP
(Lee et al., ICLR 2019, arXiv:1810.02340), and a leaderboard of PruningBench (Li et al. 2024,
arXiv:2406.12315).
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from reports.claims import CLAIMS
from reports.groups import Group, Section
from reports.tables import NONE, Block, Cell, Table, number, signed

PUBLISHED = resources.files("reports") / "published"


@dataclass(frozen=True)
class Reference:
    """A published table with our numbers, from one section."""

    table: Table
    source: str
    comparable: bool
    """Whether our runs used the published data and settings."""
    remark: str


def references(sections: Sequence[Section], folder: Traversable = PUBLISHED) -> list[Reference]:
    """Return each published table with our numbers, for each section with runs of its rows."""
    made = []
    for description in _tables(folder):
        rows = _rows(description, folder)
        candidates = [s for s in sections if s.tested and s.task in description["tasks"]]
        if "rows" in description:
            found = [_by_row(description, candidates)]
        elif "methods" in description:
            candidates = [home for home in candidates if _has_settings(description, home)]
            found = [(home, _by_budget(description, rows, home)) for home in candidates]
        else:
            found = [(home, _by_title(description, rows, home)) for home in candidates]
        made += [
            _reference(description, rows, home, groups)
            for home, groups in found
            if home is not None and any(group is not None and group.tested for group in groups)
        ]
    return made


def concern_the_paper(sections: Sequence[Section], folder: Traversable = PUBLISHED) -> bool:
    """Return whether any method of the paper on EarlyCroP was run, or any task of its tables."""
    tables = [table for table in _tables(folder) if table["paper"] == "EarlyCroP"]
    titles = {row[table["name"]].casefold() for table in tables for row in _rows(table, folder)} | {
        row["method"].casefold() for table in tables for row in table.get("rows", ())
    }
    claims = tomllib.loads(CLAIMS.read_text(encoding="utf-8"))["claim"]
    names = {
        name
        for claim in claims
        for test in claim["test"]
        for name in (*test["of"], *test.get("against", ()))
    }
    tasks = {task for table in tables for task in table["tasks"]}
    return any(
        section.task in tasks
        or any(
            group.kind != "dense" and (group.pruner in names or group.title.casefold() in titles)
            for group in section.tried
        )
        for section in sections
    )


def _tables(folder: Traversable) -> Sequence[Mapping[str, Any]]:
    tables: Sequence[Mapping[str, Any]] = tomllib.loads(
        (folder / "tables.toml").read_text(encoding="utf-8")
    )["table"]
    return tables


def _rows(description: Mapping[str, Any], folder: Traversable) -> list[dict[str, str]]:
    content = (folder / description["file"]).read_text(encoding="utf-8")
    return list(csv.DictReader(content.splitlines()))


def _by_title(
    description: Mapping[str, Any], rows: Sequence[Mapping[str, str]], section: Section
) -> list[Group | None]:
    """Return our group of the same title for each published row, at the table's sparsity."""
    groups = {
        group.title.casefold(): group
        for group in section.groups
        if group.kind == "dense" or abs(group.sparsity - description["sparsity"]) < 0.005
    }
    return [groups.get(row[description["name"]].casefold()) for row in rows]


def _by_row(
    description: Mapping[str, Any], sections: Sequence[Section]
) -> tuple[Section | None, list[Group | None]]:
    """Return the group of the same method and settings for each published row, in any section.

    Every setting that some row of the table names is the row's own value, or the default if the
    row does not name it.
    """
    rows = description["rows"]
    named = {setting.partition("=")[0] for row in rows for setting in row["settings"]}
    found: list[Group | None] = []
    home: Section | None = None
    for row in rows:
        sparsity = row.get("sparsity", description["sparsity"])
        titles = [
            (section, group)
            for section in sections
            if _settings_of(section, named) == set(row["settings"])
            for group in section.groups
            if group.title == row["method"]
            and (group.kind == "dense" or abs(group.sparsity - sparsity) < 0.005)
        ]
        found.append(titles[0][1] if titles else None)
        home = home or (titles[0][0] if titles else None)
    return home, found


def _has_settings(description: Mapping[str, Any], section: Section) -> bool:
    """Return whether runs have the settings of a table, and leave those at their defaults."""
    parts = section.setting.split(", ")
    changed = {part.partition("=")[0] for part in parts}
    return set(description["settings"]) <= set(parts) and changed.isdisjoint(
        description["defaults"]
    )


def _by_budget(
    description: Mapping[str, Any], rows: Sequence[Mapping[str, str]], section: Section
) -> list[Group | None]:
    """Return our group of the same method and budget, without further options, for each row.

    The dense network alone is no reason to show the table.
    """
    groups = {
        (group.pruner, group.budget): group
        for group in section.groups
        if group.members[0].variant in ("", f"budget={group.budget}")
    }
    methods = description["methods"]
    found = [groups.get((methods.get(row[description["name"]]), row["budget"])) for row in rows]
    if all(group is None or group.kind == "dense" for group in found):
        return [None] * len(rows)
    return found


def _settings_of(section: Section, names: Set[str]) -> set[str]:
    """Return those of some settings that have another value than the default."""
    changed = filter(None, section.setting.split(", "))
    return {setting for setting in changed if setting.partition("=")[0] in names}


def _reference(
    description: Mapping[str, Any],
    rows: Sequence[Mapping[str, str]],
    section: Section,
    groups: Sequence[Group | None],
) -> Reference:
    columns = description["columns"]
    blocks: dict[str, list[list[Cell]]] = {}
    for row, group in zip(rows, groups, strict=True):
        title = row[description["name"]]
        cells = [Cell(title, order=title)]
        for column in columns:
            cells += _three(row[column["published"]], group, column)
        block = row.get("budget") or row.get("group", "").capitalize()
        blocks.setdefault(block, []).append(cells)
    parts = (", published", ", ours", ", difference")
    header = [f"{column['title']}{part}" for column in columns for part in parts]
    remark = description.get("remark")
    comparable = not remark and section.profile == "paper" and section.source == "official"
    return Reference(
        Table(
            slug=f"published-{description['slug']}-{section.slug}",
            title=f"{description['title']}, next to {section.name}",
            columns=["Method", *header],
            blocks=[Block(title, rows) for title, rows in blocks.items()],
            stamp=section.stamp,
            notes=description["notes"],
        ),
        source=description["source"],
        comparable=comparable,
        remark=remark or _remark(comparable),
    )


def _remark(comparable: bool) -> str:
    if comparable:
        return "Our runs used the official data and the settings of the paper."
    return (
        "Our runs used other data or settings, so the difference shows neither success nor "
        "failure in reproducing the paper."
    )


def _three(published: str, group: Group | None, column: Mapping[str, Any]) -> list[Cell]:
    """Return the published number, ours, and the difference."""
    theirs = float(published) if published else None
    first = Cell(NONE, "not published") if theirs is None else Cell(published, order=theirs)
    interval = None
    if group is not None:
        known = group.ratios if column.get("relative") else group.intervals
        interval = known.get(column["ours"])
    if group is None or interval is None:
        why = group.reasons.get(column["ours"], "not measured") if group else "not run"
        return [first, Cell(NONE, why), Cell(NONE, why)]
    value = column.get("scale", 1.0) * interval.mean
    estimated = "~" if column["ours"] in group.estimated else ""
    seeds = f"{interval.n} seed{'s' * (interval.n != 1)}"
    target = group.run_ids[0]
    ours = Cell(f"{estimated}{number(value)}", seeds, order=value, target=target)
    if theirs is None:
        return [first, ours, Cell(NONE, "not published")]
    return [first, ours, Cell(signed(value - theirs), order=value - theirs)]
