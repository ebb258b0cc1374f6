"""Whatever is wrong with a record, it is refused with the reason, or read without a traceback."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.commands import compare
from harness.errors import DamagedFile
from harness.matrix.estimates import Estimates
from harness.results.summary import summarise, summarise_events
from harness.storage.damage import damage
from harness.storage.store import Store
from tests.helpers.records import RECORD, record

RUN = RECORD["run_id"]


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Go through the places of all keys and items of nested containers."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        yield (*place, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*place, key))


def changed(place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """Return the record with another value somewhere, or without it if that is ``...``."""
    broken = copy.deepcopy(RECORD)
    *parts, last = place
    inner = broken
    for part in parts:
        inner = inner[part]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return broken


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "results")
    made.open_run(RUN)
    made.save(RECORD)
    return made


def test_a_record_of_the_engine_is_not_damaged() -> None:
    assert damage(RECORD) is None


@pytest.mark.parametrize("value", [..., None, True, 3, "text", [], {}, [None], {"a": None}])
def test_a_change_anywhere_is_found_or_does_no_harm(value: Any) -> None:
    """What the store lets through can be shown, compared and estimated from."""
    for place in places(RECORD):
        broken = changed(place, value)
        if damage(broken) is None:
            summarise(broken), summarise_events(broken), Estimates([broken])
            for pair in ((broken, RECORD), (RECORD, broken)):
                compare._compare_runs(*pair), compare._runs_as_object(*pair)
                folders = [{compare._request(each): each} for each in pair]
                compare._compare_folders(Path("a"), folders[0], Path("b"), folders[1])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"quality": None}, "quality is no object"),
        ({"quality__test": "good"}, "quality.test is 'good'"),
        ({"quality__test": True}, "quality.test is True"),
        ({"events": {}}, "events is no list"),
        ({"status": "fine"}, "status is 'fine'"),
        ({"status": ["done"]}, "status is a list"),
        ({"cost": {}}, "cost.reasons is missing"),
        ({"run_id": "../elsewhere"}, "run_id is '../elsewhere', which cannot be the name of a f"),
        ({"run_id": ".."}, "run_id is '..', which cannot be the name of a folder"),
        ({"run_id": "ü" * 128}, "which cannot be the name of a folder"),
        ({"events": [{"verb": "prune", "spent": 1}]}, "events[0].units is missing"),
    ],
)
def test_the_first_thing_that_is_wrong_is_named(change: dict[str, Any], what: str) -> None:
    assert what in str(damage(record(**change)))


def test_a_failed_run_has_no_costs_and_is_not_damaged() -> None:
    nothing = {"cost": {}, "events": [], "sparsity": {"requested": 0.98}, "provenance": {}}
    assert damage({**RECORD, "status": "failed", "reason": "boom", **nothing}) is None


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[" * 100_000, "is damaged; remove it to run again"),
        ("null", "is damaged; remove it to run again"),
        (json.dumps(record(quality=None)), "is damaged: quality is no object; remove it to run a"),
    ],
)
def test_contents_that_are_no_record(store: Store, content: str, complaint: str) -> None:
    (store.folder / RUN / "record.json").write_text(content)
    with pytest.raises(DamagedFile, match=complaint):
        store.find(RUN)


def test_numbers_too_large_for_a_float_are_none(store: Store) -> None:
    text = json.dumps(RECORD).replace("97.25", "1e999")
    (store.folder / RUN / "record.json").write_text(text)
    assert store.find(RUN)["quality"]["test"] is None


def test_a_folder_in_place_of_the_record(store: Store) -> None:
    path = store.folder / RUN / "record.json"
    path.unlink()
    path.mkdir()
    with pytest.raises(DamagedFile, match=r"record.json: cannot be read: Is a directory$"):
        store.find(RUN)


def test_a_link_that_leads_nowhere(store: Store) -> None:
    path = store.folder / RUN / "record.json"
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(DamagedFile, match=r"is a link to a file that does not exist$"):
        store.find(RUN)
    path.unlink()
    path.symlink_to("record.json")
    with pytest.raises(DamagedFile, match=r"cannot be read: Too many levels of symbolic links$"):
        store.find(RUN)


AS_SOMEBODY_ELSE = """
import json, os, sys
# What is imported later this user may not be able to read either.
from harness.command_line import main
from harness.commands import compare, list, show, status
if os.geteuid() == 0:
    os.seteuid(65534)
for words in json.loads(sys.argv[1]):
    print(">", *words, file=sys.stderr)
    print(main(words), file=sys.stderr)
"""


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user can get into, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("closed", [".", "record.json"])
def test_a_record_that_this_user_may_not_read(public: Path, closed: str) -> None:
    store = Store(public / "results")
    for run_id in (RUN, "open"):
        store.open_run(run_id)
        store.save(record(run_id=run_id))
    (store.folder / RUN / closed).chmod(0)
    folder = str(store.folder)
    commands = [
        *(["show", RUN], ["status", "--json"], ["list", "suites"]),
        ["compare", folder, folder],
    ]
    ended = subprocess.run(
        [sys.executable, "-c", AS_SOMEBODY_ELSE, json.dumps(commands)],
        cwd=public,
        capture_output=True,
        text=True,
        check=True,
    )
    (store.folder / RUN / closed).chmod(0o755)
    complaint = f"{RUN}/record.json: cannot be read: Permission denied"
    said = [line for line in ended.stderr.splitlines() if not line.startswith(">")]
    path = store.folder / complaint
    assert said == [
        *(f"error: results/{complaint}", "2"),
        "0",
        *(f"warning: results/{complaint}", "0"),
        *(f"warning: {path}", f"warning: {path}", "0"),
    ]
    assert complaint in ended.stdout
