"""Imports would take most of the time of a smoke run, so it does without many libraries."""

from __future__ import annotations

import subprocess
import sys

NOT_NEEDED = {
    "codecarbon",
    "gymnasium",
    "matplotlib",
    "pandas",
    "rich",
    "scipy",
    "skimage",
    "sklearn",
    "torch.utils.benchmark",
}

IMPORTS = """
import sys
from harness.registry import Registry
import harness.engine.run_plan

registry = Registry()
registry.find("task", "digits").load()
registry.find("pruner", "snip").load()
print(*sys.modules)
"""


def test_a_smoke_run_imports_no_library_that_it_does_not_need() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True
    )
    assert set(ended.stdout.split()) & NOT_NEEDED == set()
