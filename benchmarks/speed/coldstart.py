"""How long a user waits for ``--help`` and ``list``, beside an import of torch."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.measurement import Comparison, alternate

ALLOWED_SECONDS = 0.4
ROUNDS = 7


def measure() -> list[Comparison]:
    """Time both commands, each in turn with an import of torch."""
    return [line for word in ("--help", "list") for line in _measure(word)]


def _measure(word: str) -> list[Comparison]:
    ours, theirs = alternate(
        lambda: _python("-m", "harness", word), lambda: _python("-c", "import torch"), ROUNDS
    )
    return [
        Comparison(f"{word} / import torch", ours, theirs, "s", 0.15),
        Comparison(f"{word}, at most", ours, ALLOWED_SECONDS, "s", 1.0),
    ]


def _python(*words: str) -> None:
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
