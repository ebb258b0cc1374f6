"""Write a report on a results folder."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from harness.errors import RequestError
from harness.storage import files
from reports import data, exports
from reports.charts import chart_data, methods
from reports.claims import claims_table, judge
from reports.data import require_formats
from reports.figures import draw_all
from reports.groups import pooled
from reports.groups import sections as sections_of
from reports.lengths import lengths_table, over_lengths
from reports.moments import moments
from reports.page import render
from reports.published import concern_the_paper, references
from reports.ranking import outside, rankings
from reports.results import UNTRIED, read
from reports.tables import Table, matrix, ranking_table, result_table

WRITERS = {"csv": exports.to_csv, "md": exports.to_markdown, "tex": exports.to_latex}


def write(
    results_folder: Path, out: Path, measured_on: str = "", formats: Collection[str] = ()
) -> Path:
    """Write the report on a results folder and return its page.

    Args:
        results_folder: the results, which are only read.
        out: the report's folder; it is created if necessary, and files in it are replaced.
        measured_on: what the name of the device that measured networks again must contain.
        formats: further formats of the tables, and of the row of each run: `reports.data.FORMATS`.

    Raises:
        RequestError: there are no results, a format is not available, or the folder cannot be
            created.
        RunFailed: a file cannot be written, for example because the disk is full.
    """
    require_formats(formats)
    results = read(results_folder, measured_on)
    sections = sections_of(results)
    tables = {section.slug: result_table(section) for section in sections}
    by_length = {section.slug: over_lengths(section, results) for section in sections}
    lengths = {
        section.slug: lengths_table(section, by_length[section.slug])
        for section in sections
        if by_length[section.slug]
    }
    front = matrix(sections)
    published = references(sections)
    together = pooled(sections)
    ranked = rankings(together)
    unranked = outside(together)
    order = [ranking_table(ranking) for ranking in ranked]
    order = [replace(table, notes=[*table.notes, *unranked]) for table in order]
    verdicts = judge(together) if concern_the_paper(together) else []
    _make(out, out / "tables", out / "figures")
    checked = [claims_table(verdicts)] if verdicts else []
    of_paper = [reference.table for reference in published]
    for table in (front, *order, *tables.values(), *lengths.values(), *checked, *of_paper):
        _write_table(table, out / "tables", formats)
    tried = {name: r for name, r in results.records.items() if r["status"] not in UNTRIED}
    header, rows = data.rows_of_runs(tried, {run.run_id for run in results.runs})
    files.write(out / "runs.csv", exports.runs_to_csv(header, rows).encode())
    if "json" in formats:
        files.write(out / "runs.json", data.to_json(header, rows))
    if "parquet" in formats:
        files.write(out / "runs.parquet", data.to_parquet(header, rows))
    looks = methods(sections)
    charts = {
        section.slug: chart_data(section, results, by_length[section.slug]) for section in sections
    }
    chosen = {
        section.slug: found
        for section in sections
        if (found := moments(run for group in section.groups for run in group.members))
    }
    drawn = draw_all(sections, ranked, charts, looks, chosen, out / "figures")
    pictures = {slug: out / "figures" / f"{drawn[slug]['moment']}.svg" for slug in chosen}
    page = render(
        results,
        sections,
        front,
        tables,
        lengths,
        list(zip(ranked, order, strict=True)),
        unranked,
        verdicts,
        published,
        charts,
        looks,
        drawn,
        {slug: picture.read_bytes() for slug, picture in pictures.items()},
    )
    files.write(out / "index.html", page.encode())
    return out / "index.html"


def _make(*folders: Path) -> None:
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError(f"report folder {folder}: {error.strerror}") from error


def _write_table(table: Table, folder: Path, formats: Collection[str]) -> None:
    for ending, writer in WRITERS.items():
        files.write(folder / f"{table.slug}.{ending}", writer(table).encode())
    if "json" in formats:
        files.write(folder / f"{table.slug}.json", data.table_to_json(table))
    if "parquet" in formats:
        files.write(folder / f"{table.slug}.parquet", data.to_parquet(*data.rows_of(table)))
