"""How long a report on two thousand runs takes, and how much memory."""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path

from benchmarks.measurement import Comparison, in_new_process

ALLOWED_SECONDS = 30.0
ALLOWED_MEGABYTES = 1000.0
ALLOWED_PAGE_MEGABYTES = 5.0


def measure() -> list[Comparison]:
    """Write the report on fabricated runs, in a process of its own."""
    # The tests know how to fabricate results; nothing else does.
    from tests.helpers.fabricated import save, two_thousand

    with tempfile.TemporaryDirectory() as folder:
        results = save(Path(folder) / "results", two_thousand())
        seconds, memory, page = in_new_process(_report, results, Path(folder) / "report")
    return [
        Comparison("report on 2,000 runs", seconds, ALLOWED_SECONDS, "s", 1.0),
        Comparison("the same, peak memory", memory, ALLOWED_MEGABYTES, "MB", 1.0),
        Comparison("the same, page", page, ALLOWED_PAGE_MEGABYTES, "MB", 1.0),
    ]


def _report(results: Path, out: Path) -> tuple[float, float, float]:
    """Return seconds, imports included, peak memory and size of the page in megabytes."""
    began = time.perf_counter()
    from reports.report import write

    page = write(results, out)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return seconds, peak, page.stat().st_size / 1e6
