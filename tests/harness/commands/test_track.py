"""``track``: finished runs in a tracker."""

from __future__ import annotations

from pathlib import Path

import pytest

import harness
from harness.storage.store import Store
from harness.tracking.following import FOLDER
from tests.helpers.commands import Command
from tests.helpers.records import RECORD, record
from tests.helpers.trackers import Forgetful, read_diary, register_trackers


@pytest.fixture(autouse=True)
def two_runs(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two finished runs in the folder ``results``, and the trackers of the tests."""
    register_trackers(tmp_path, monkeypatch)
    store = Store(Path("results"))
    for name in ("one", "other"):
        store.open_run(name)
        store.save(record(run_id=name))


def test_finished_runs_are_told(command: Command) -> None:
    said = command("track", "one", "results/other", "--to", "diary")
    assert (said.code, said.out) == (0, f"diary: 2 runs in results/{FOLDER}/diary\n")
    told = sorted(path.stem for path in Path("results", FOLDER, "diary").glob("*.diary"))
    assert told == ["one", "other"]


def test_python_offers_the_same() -> None:
    folders = harness.track_runs("one", to="diary")
    assert folders == {"diary": Path("results", FOLDER, "diary")}
    begun, *_, ended = read_diary(folders["diary"])
    assert begun[1]["pruner"] == "earlycrop_u"
    assert ended == ("done", ended[1])
    assert ended[1]["quality/test"] == RECORD["quality"]["test"]


def test_a_tracker_that_fails_is_one_line_and_the_others_go_on(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Forgetful, "told", 0)
    said = command("track", "one", "--to", "forgetful,diary")
    assert said.code == 1
    assert said.err == (
        "failed: tracker 'forgetful' has failed, and is not used any further: "
        "ConnectionError: the server is gone\n"
    )
    assert read_diary(Path("results", FOLDER, "diary"))[-1][0] == "done"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("one", "--to", "diry"), "error: unknown tracker 'diry'; did you mean 'diary'?"),
        (("one", "--to", "absent"), "error: tracker 'absent': no_such_package is not installed"),
        (("two", "--to", "diary"), "error: results folder results contains no run 'two'"),
        (("one",), "error: the following arguments are required: --to"),
    ],
)
def test_a_mistake_is_one_line(command: Command, words: tuple[str, ...], complaint: str) -> None:
    said = command("track", *words)
    assert said.code == 2
    assert said.err.startswith(complaint)
    assert len(said.err.splitlines()) == 1
    assert not Path("results", FOLDER).exists()
