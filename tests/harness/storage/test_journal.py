"""The journal of a run: entries come back, and nothing after damage is used."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from harness.contracts import Killed
from harness.errors import RunFailed
from harness.storage.journal import Entry, Journal, fingerprint, plain
from pruners.criteria import crop, magnitude
from pruners.triggers import lazy_regime
from tests.helpers.disk import FailingDisk, when

ENTRIES = [
    Entry("train", "train(1)", {"steps": 4}, {"epochs": [{"loss": 0.1}]}),
    Entry("prune", "prune(0.9)", {"sparsity": 0.9}, {"verb": "prune"}),
    Entry("train", "train(None)", {"steps": 8}, {"epochs": []}),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of three verbs."""
    journal = Journal(tmp_path / "journal.jsonl")
    for entry in ENTRIES:
        journal.append(entry)
    return tmp_path / "journal.jsonl"


def test_entries_come_back(path: Path) -> None:
    assert Journal(path).entries == ENTRIES


def test_an_entry_that_was_half_written_is_ignored(path: Path) -> None:
    journal = Journal(path)
    with FailingDisk(when("write")).in_use(), pytest.raises(Killed):
        journal.append(ENTRIES[0])
    again = Journal(path)
    assert again.entries == ENTRIES
    again.append(ENTRIES[1])
    assert Journal(path).entries == [*ENTRIES, ENTRIES[1]]


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line.replace(b"0.9", b"0.8"),
        lambda line: b"no JSON\n",
        lambda line: b"[]\n",
        lambda line: b"{}\n",
        lambda line: b"\xff\xfe\n",
        lambda line: line[:-9] + b"\n",
        lambda line: b"",
    ],
)
def test_entries_after_damage_are_dropped(path: Path, damage: Callable[[bytes], bytes]) -> None:
    first, second, third = path.read_bytes().splitlines(keepends=True)
    damaged = damage(second)
    assert damaged != second
    path.write_bytes(first + damaged + third)
    assert Journal(path).entries == ENTRIES[:1]
    assert path.read_bytes() == first


def test_truncating_drops_the_last_entries(path: Path) -> None:
    journal = Journal(path)
    journal.truncate(1)
    assert journal.entries == Journal(path).entries == ENTRIES[:1]


def test_numbers_that_json_cannot_express_become_none() -> None:
    event = {"loss": math.inf, "epochs": ({"perplexity": math.nan},), 1: 0.5, "verb": "train"}
    assert plain(event) == {
        "loss": None,
        "epochs": [{"perplexity": None}],
        "1": 0.5,
        "verb": "train",
    }


@dataclass
class Sampled:
    """An argument of a verb that was built with a function, as triggers may be."""

    criterion: Callable[..., object]
    _seen: list[int] = field(default_factory=list, repr=False)


def test_fingerprints_contain_the_constructor_arguments() -> None:
    assert fingerprint([1, 0.5, "a", None]) == "[1, 0.5, 'a', None]"
    assert fingerprint(crop) == "crop"
    assert fingerprint(lazy_regime(threshold=0.1)) == (
        "LazyRegime{threshold: 0.1, norm_power: 2, reference: 'start'}"
    )
    assert fingerprint(partial(round, ndigits=2)) == "round[{ndigits: 2}]"


def test_fingerprints_contain_no_address_and_no_state() -> None:
    assert (
        fingerprint(Sampled(crop, [1]))
        == fingerprint(Sampled(crop, [2]))
        == ("Sampled{criterion: crop}")
    )
    assert fingerprint(Sampled(crop)) != fingerprint(Sampled(magnitude))


def test_an_argument_without_a_fingerprint_is_refused() -> None:
    with pytest.raises(RunFailed, match="an argument of type object cannot be recorded"):
        fingerprint(object())


def test_a_journal_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").mkdir()
    with pytest.raises(RunFailed, match=r"^cannot read .*journal.jsonl: Is a directory$"):
        Journal(tmp_path / "journal.jsonl")


def test_a_line_that_is_nested_too_deeply_is_dropped(path: Path) -> None:
    path.write_text("[" * 100_000 + "\n")
    assert Journal(path).entries == []
