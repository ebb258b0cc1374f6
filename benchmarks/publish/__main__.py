"""Make every table and figure of the documents from results.

    python -m benchmarks.publish [--results DIR ...] [--example DIR]

With ``--results``, what the folders hold of the suites that the documents show is first taken into
``benchmarks/results``. Then the tables and figures of README.md, benchmarks/README.md and docs are
made from these files alone.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.publish import documents, runs
from harness.errors import RequestError
from harness.storage import files
from harness.text import several
from reports import report
from reports.results import read

EXAMPLE = documents.PROJECT / "reports" / "example"


def main(words: Sequence[str] | None = None) -> int:
    """Take in results, write the pages and figures, and say what has changed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.publish",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--results", type=Path, action="append", default=[], metavar="DIR", help="a results folder"
    )
    parser.add_argument(
        "--example", type=Path, metavar="DIR", help="also make reports/example from this folder"
    )
    arguments = parser.parse_args(words)
    try:
        if not documents.PROJECT.joinpath("CONTRIBUTING.md").exists():
            raise RequestError(
                "the documents are not there; publish from a checkout of the project"
            )
        for folder in arguments.results:
            found = runs.update(documents.SUITES, read(folder))
            if not found:
                raise RequestError(f"{folder} has no runs of {', '.join(documents.SUITES)}")
            for suite, number in found.items():
                print(f"{folder}: {several(number, 'run')} of the suite {suite}")
        runs.refresh(documents.SUITES)
        if arguments.example is not None:
            write_example(arguments.example)
        for path in documents.draw_all():
            print(f"{path.relative_to(documents.PROJECT)}: drawn")
        for page in documents.pages():
            content = documents.filled(page)
            if content != page.read_text(encoding="utf-8"):
                files.write(page, content.encode())
                print(f"{page.relative_to(documents.PROJECT)}: changed")
    except RequestError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def write_example(results: Path) -> None:
    """Write the example of a report: the page, and its figures of costs as PNG."""
    with tempfile.TemporaryDirectory() as folder:
        page = report.write(results, Path(folder)).read_text(encoding="utf-8")
        for figure in sorted(EXAMPLE.glob("figures/*")):
            figure.unlink()
        for figure in sorted(Path(folder).glob("figures/*-costs.png")):
            files.write(EXAMPLE / "figures" / figure.name, figure.read_bytes())
    files.write(EXAMPLE / "index.html", page_alone(page).encode())


def page_alone(page: str) -> str:
    """Return the page of a report without links to files that the example does not have."""

    def only_costs(paragraph: re.Match[str]) -> str:
        costs = re.search(r'"(figures/[^"]+-costs\.png)"', paragraph[0])
        return (
            f'<p class="files">Figure: <a href="{costs[1]}">costs (PNG)</a>.</p>\n' if costs else ""
        )

    page = re.sub(r'<p class="files">.*?</p>\n', only_costs, page, flags=re.DOTALL)
    page = page.replace('<a href="runs.csv">runs.csv</a>', "<code>runs.csv</code>")
    plain = "<code>runs.csv</code> has a row for each run, with plain numbers."
    alone = "This example is the page alone. Beside it, <code>report</code> writes every table and "
    alone += "figure as files, and <code>runs.csv</code>, which has a row for each run."
    return page.replace(plain, alone)


if __name__ == "__main__":
    sys.exit(main())
