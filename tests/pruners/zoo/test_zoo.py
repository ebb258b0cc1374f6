"""Networks of other libraries: how many can be cut, and how many are cut wrongly.

The tests take an hour or two. ``tox -e zoo`` installs the libraries and runs them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from benchmarks.zoo import families, pool, table

LEAST_RIGHT = {"timm": 0.92, "transformers": 0.82}
"""Share of a family's networks that are cut correctly, including those that count channels."""

MOST_WRONG = {"timm": 0.05, "transformers": 0.08}
"""Share of a family's networks for which the graph is wrong."""


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def tried(family: str) -> list[table.Row]:
    names = [(family, name) for name in families.FAMILIES[family].names()]
    modules: Sequence[str] = families.FAMILIES[family].modules
    processors = len(os.sched_getaffinity(0))
    return list(pool.results(families.try_one, names, jobs=processors, preload=modules))


SAMPLE = {
    "timm": ["vit_tiny_patch16_224", "eva02_tiny_patch14_224", "swin_tiny_patch4_window7_224"],
    "transformers": ["Bert-sdpa", "GPT2-sdpa", "Llama-sdpa", "T5-eager"],
}
"""Transformers of the most common designs."""


@pytest.mark.zoo
@pytest.mark.parametrize(("family", "name"), [(f, n) for f, own in SAMPLE.items() for n in own])
def test_heads_and_neurons_of_transformers_are_removed_exactly(family: str, name: str) -> None:
    pytest.importorskip(family)
    result = families.cut_transformer(family, name)
    assert (result.outcome, result.reason) == ("right", "")
    assert result.difference < 1e-10
    assert {"attention heads", "feed-forward neurons"} <= result.kinds.keys()


@pytest.mark.zoo
@pytest.mark.parametrize("family", families.FAMILIES)
def test_most_networks_are_cut_right(family: str, capsys: pytest.CaptureFixture[str]) -> None:
    for library in families.FAMILIES[family].modules:
        pytest.importorskip(library)
    rows = tried(family)
    with capsys.disabled():
        print("", *table.summary(rows), sep="\n")
    counts = table.counts(rows)[family]
    scored = len(rows) - counts["not built"]
    right = counts["right"] + counts["counts channels"]
    failures = [f"{name}: {result.reason}" for _, name, result in rows if result.outcome == "wrong"]
    assert right >= LEAST_RIGHT.get(family, 0.85) * scored
    assert counts["wrong"] <= MOST_WRONG.get(family, 0.05) * scored, "\n".join(failures)
