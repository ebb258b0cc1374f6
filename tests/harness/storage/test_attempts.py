"""The list of attempts at a run: a damaged list is empty, and does no further harm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.storage.journal import MACHINE, Attempts

ENVIRONMENT = {**dict.fromkeys(MACHINE, "x"), "runs_on_device": 1}


def test_attempts_come_back(tmp_path: Path) -> None:
    path = tmp_path / "lives.json"
    Attempts(path).begin(3, ENVIRONMENT)
    (attempt,) = Attempts(path).entries
    assert attempt["position"] == 3
    assert Attempts(path).same_machine


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "null", "3", "{}", "[3]", "[null]", "[{}]", "[" * 100_000),
        json.dumps([{"started": "x", "position": "3", **ENVIRONMENT}]),
        json.dumps([{"started": None, "position": 3, **ENVIRONMENT}]),
        json.dumps([{"started": "x", "position": 3}]),
    ],
)
def test_a_damaged_file_gives_no_attempts(tmp_path: Path, content: str) -> None:
    path = tmp_path / "lives.json"
    path.write_text(content)
    assert Attempts(path).entries == []


def test_a_folder_in_its_place_gives_no_attempts(tmp_path: Path) -> None:
    (tmp_path / "lives.json").mkdir()
    assert Attempts(tmp_path / "lives.json").entries == []
