"""The changelog says what each version of the engine, the record, a task and a pruner changed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.record import SCHEMA
from harness.registry import Kind, Registry
from harness.spec import ENGINE_VERSION

CHANGELOG = (Path(__file__).resolve().parent.parent / "CHANGELOG.md").read_text(encoding="utf-8")
ENTRIES = {
    heading: body.strip() for heading, body in re.findall(r"^### (.+)\n([^#]*)", CHANGELOG, re.M)
}
"""The text below each heading of the third level."""


@pytest.mark.parametrize("version", range(1, ENGINE_VERSION + 1))
def test_every_version_of_the_engine_has_an_entry(version: int) -> None:
    assert ENTRIES[f"Engine {version}"]


@pytest.mark.parametrize("version", range(1, SCHEMA + 1))
def test_every_schema_has_an_entry(version: int) -> None:
    assert ENTRIES[f"Schema {version}"]


@pytest.mark.parametrize("kind", ["task", "pruner"])
def test_every_later_version_of_a_task_or_a_pruner_has_an_entry(kind: Kind) -> None:
    for entry in Registry().of_kind(kind).values():
        for version in range(2, int(entry.version) + 1):
            assert ENTRIES[f"`{entry.name}` {version}"]


def test_no_entry_is_about_a_version_that_does_not_exist() -> None:
    registry = Registry()
    current = {"Engine": ENGINE_VERSION, "Schema": SCHEMA}
    for kind in ("task", "pruner"):
        current |= {f"`{e.name}`": int(e.version) for e in registry.of_kind(kind).values()}
    for heading in ENTRIES:
        if versioned := re.fullmatch(r"(.+) (\d+)", heading):
            assert int(versioned[2]) <= current[versioned[1]], heading
