"""What the documents show, and the suites from whose runs it is made.

A table or a figure of a page is between the comments ``<!-- results: NAME -->`` and
``<!-- end of results -->``. `TABLES` and `FIGURES` say what each name stands for.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from matplotlib.figure import Figure as Drawing
from PIL import Image

from benchmarks.publish.runs import read_rows
from benchmarks.publish.tables import (
    Claims,
    Comparison,
    Dense,
    Difficulty,
    MomentCurves,
    MomentsOfTriggers,
    Rates,
    Readings,
    Speed,
    section_of,
)
from harness.errors import RequestError, nearest
from harness.storage import files
from reports.charts import methods
from reports.drawing import METADATA, in_style
from reports.figures import FIGURES as OF_REPORTS
from reports.groups import Section
from reports.moments import draw, moments

PROJECT = Path(__file__).resolve().parent.parent.parent

BLOCK = re.compile(
    r"^<!-- results: (?P<name>.+?) -->\n(?P<content>.*?)^<!-- end of results -->$",
    re.MULTILINE | re.DOTALL,
)

RUNS = "Runs"
"""The text of a PNG file that has a hash of the runs from which it was drawn."""


class Table(Protocol):
    """A table of a page."""

    def markdown(self) -> str:
        """Return the table; it is empty if there is nothing to show."""


def moment_figure(section: Section) -> Drawing | None:
    """Draw the metric against the moment of pruning, with the moments of triggers below it."""
    found = moments(run for group in section.groups for run in group.members)
    if found is None:
        return None
    return draw(found, section.metric_title, section.name, section.stamp)


def cost_figure(section: Section) -> Drawing | None:
    """Draw the metric against each of the main costs, if there are methods beside dense."""
    if all(group.kind == "dense" or not group.tested for group in section.groups):
        return None
    return OF_REPORTS["costs"](section, {}, {m["id"]: m for m in methods([section])})


@dataclass(frozen=True)
class Figure:
    """A figure of a page.

    Attributes:
        file: its PNG file, from the project's folder.
        suite: whose runs it shows.
        task: on which task.
        draw: returns the figure of their section; None if there is nothing to draw.
        shows: what it shows, in words.
    """

    file: str
    suite: str
    task: str
    draw: Callable[[Section], Drawing | None]
    shows: str

    def drawing(self) -> Drawing | None:
        """Return the figure; None if there is nothing to draw."""
        section = section_of(self.suite, self.task)
        return None if section is None else self.draw(section)

    def runs_sha256(self) -> str:
        """Return a hash of the runs that it shows."""
        runs = [row for row in read_rows(self.suite) if row["task"] == self.task]
        names = {row["run_id"] for row in runs}
        readings = [row for row in read_rows("readings") if row["run_id"] in names]
        return hashlib.sha256(json.dumps([runs, readings]).encode()).hexdigest()

    def drawn_from(self) -> str | None:
        """Return the hash of the runs from which its file was drawn; None if it has none."""
        with Image.open(PROJECT / self.file) as image:
            found = image.info.get(RUNS)
        return found if isinstance(found, str) else None

    def markdown(self, page: Path) -> str:
        """Return the link that shows it on a page."""
        if not (PROJECT / self.file).exists():
            return ""
        return f"![{self.shows}]({os.path.relpath(PROJECT / self.file, page.parent)})\n"


SUITES = (
    *("structured", "unstructured", "transformers", "moment", "warmup"),
    *("fashion_mnist", "laptop", "laptop_moment"),
)
"""The suites of which the documents show runs."""

OF_NETWORK = ("step_ms", "inference_ms", "peak_step_bytes", "disk_bytes")

TABLES: Mapping[str, Table] = {
    "structured on digits": Comparison("structured", "digits", (0.98, 0.99, "macs=0.25")),
    "unstructured on digits": Comparison("unstructured", "digits", (0.995,), ("train_macs",)),
    "structured on cartpole": Comparison("structured", "cartpole", ("macs=0.25",), ()),
    "unstructured on cartpole": Comparison("unstructured", "cartpole", (0.9,), ()),
    "transformers on digits": Comparison(
        "transformers", "digits", ("macs=0.5",), OF_NETWORK, channels=True
    ),
    "transformers on ptb": Comparison(
        "transformers", "ptb", ("macs=0.5",), OF_NETWORK, channels=True
    ),
    "single weights of transformers on digits": Comparison(
        "transformers", "digits", (0.9,), ("train_macs",)
    ),
    "single weights of transformers on ptb": Comparison(
        "transformers", "ptb", (0.9,), ("train_macs",)
    ),
    "structured on fashion_mnist, LeNet-300-100": Comparison(
        "fashion_mnist", "fashion_mnist", ("macs=0.25",), kinds=("structured", "control")
    ),
    "unstructured on fashion_mnist, LeNet-300-100": Comparison(
        "fashion_mnist", "fashion_mnist", (0.9,), ("train_macs", "disk_bytes")
    ),
    "structured on fashion_mnist, LeNet-5": Comparison(
        "laptop",
        "fashion_mnist",
        (0.95, 0.99, "macs=0.25"),
        ("macs", *OF_NETWORK),
        ("structured",),
    ),
    "unstructured on fashion_mnist, LeNet-5": Comparison(
        "laptop", "fashion_mnist", (0.95, 0.99), ("train_macs", "disk_bytes"), ("unstructured",)
    ),
    "controls on fashion_mnist, LeNet-5": Comparison(
        "laptop", "fashion_mnist", (0.95, 0.99, "macs=0.25"), ("train_macs",), ("control",)
    ),
    "cifar10": Comparison("laptop", "cifar10", (0.95,)),
    "ptb": Comparison("laptop", "ptb", (0.5, 0.9)),
    "moments on digits": MomentCurves("moment", "digits"),
    "moments on fashion_mnist": MomentCurves("laptop_moment", "fashion_mnist"),
    "moments on cifar10": MomentCurves("laptop_moment", "cifar10"),
    "moments of triggers on digits": MomentsOfTriggers("moment", "digits"),
    "moments of triggers on fashion_mnist": MomentsOfTriggers("laptop_moment", "fashion_mnist"),
    "moments of triggers on cifar10": MomentsOfTriggers("laptop_moment", "cifar10"),
    "readings": Readings("moment"),
    "warm-up": Dense(("warmup",), timed=False),
    "dense on official data": Dense(("fashion_mnist", "laptop")),
    "claims on embedded data": Claims(("structured", "unstructured", "moment")),
    "verdicts": Rates("normal"),
    "difficulty": Difficulty("warmup"),
    "speed": Speed(),
    "speed of sparse kernels": Speed(of_sparse_kernels=True),
    "claims on official data": Claims(("fashion_mnist", "laptop", "laptop_moment")),
}

FIGURES: Mapping[str, Figure] = {
    "figure of moments on digits": Figure(
        "docs/moment-digits.png",
        "moment",
        "digits",
        moment_figure,
        "Test accuracy on digits against the epoch of pruning",
    ),
    "figure of moments on fashion_mnist": Figure(
        "docs/moment-fashion_mnist.png",
        "laptop_moment",
        "fashion_mnist",
        moment_figure,
        "Test accuracy on Fashion-MNIST against the epoch of pruning",
    ),
    "figure of moments on cifar10": Figure(
        "docs/moment-cifar10.png",
        "laptop_moment",
        "cifar10",
        moment_figure,
        "Test accuracy on CIFAR-10 against the epoch of pruning",
    ),
    "figure of costs on cifar10": Figure(
        "docs/costs-cifar10.png",
        "laptop",
        "cifar10",
        cost_figure,
        "Test accuracy on CIFAR-10 against each cost",
    ),
    "figure of costs on ptb": Figure(
        "docs/costs-ptb.png",
        "laptop",
        "ptb",
        cost_figure,
        "Test perplexity on the Penn Treebank against each cost",
    ),
}


def pages() -> list[Path]:
    """Return the pages that may have tables and figures."""
    folders = sorted((PROJECT / "docs").rglob("*.md"))
    return [PROJECT / "README.md", PROJECT / "benchmarks" / "README.md", *folders]


def filled(page: Path) -> str:
    """Return the content of a page with all of its tables and links to figures as they should be.

    Raises:
        RequestError: a name is not known, or a comment that ends a block is missing.
    """
    text = page.read_text(encoding="utf-8")
    if text.count("<!-- results: ") != len(BLOCK.findall(text)):
        raise RequestError(f"{page}: a block of results has no end")

    def block(found: re.Match[str]) -> str:
        name = found["name"]
        if name in TABLES:
            content = TABLES[name].markdown()
        elif name in FIGURES:
            content = FIGURES[name].markdown(page)
        else:
            known = [*TABLES, *FIGURES]
            raise RequestError(f"{page}: unknown results {name!r}{nearest(name, known)}")
        content = f"\n{content}\n" if content else ""
        return f"<!-- results: {name} -->\n{content}<!-- end of results -->"

    return BLOCK.sub(block, text)


def draw_all() -> Iterator[Path]:
    """Draw every figure for which there are runs, and iterate over their files."""
    with in_style():
        for figure in FIGURES.values():
            if (drawing := figure.drawing()) is not None:
                content = io.BytesIO()
                about = {**METADATA["png"], RUNS: figure.runs_sha256()}
                drawing.savefig(content, format="png", dpi=120, metadata=about)
                files.write(PROJECT / figure.file, content.getvalue())
                yield PROJECT / figure.file
