"""The type of a record: a wrong one is refused with the reason, or read without a traceback."""

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
from harness.record import (
    COSTS,
    Cost,
    Quantity,
    check,
    decode,
    encode,
    fields,
)
from harness.results import frame
from harness.results.example import EXAMPLE
from harness.results.frame import keys, markdown
from harness.results.summary import summarise, summarise_events
from harness.storage.store import Store
from tests.helpers.records import RECORD, record

RUN = RECORD["run_id"]


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Iterate over the places of all keys and items of nested containers."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        yield (*place, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*place, key))


def changed(place: tuple[Any, ...], value: Any) -> Any:
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


def damage(value: Any) -> str | None:
    """Return what is wrong with a record; None if nothing is."""
    try:
        check(value)
    except DamagedFile as error:
        return str(error)
    return None


def test_the_example_is_a_record_with_every_key_of_a_cost() -> None:
    assert damage(EXAMPLE) is None
    assert EXAMPLE["cost"].keys() == fields(Cost).keys()
    assert list(EXAMPLE["cost"]) == list(fields(Cost))


def test_every_key_has_a_meaning() -> None:
    assert [key.place for key in keys() if not key.field.meaning] == []


def test_the_documentation_has_a_line_for_each_key() -> None:
    header, rule, *lines = markdown().splitlines()
    assert header.count("|") == rule.count("|") == 5
    assert len(lines) == len(list(keys()))
    step = "median time of a training step of the final network"
    assert f"| `cost.step_ms` | number or null | ms | {step} |" in lines
    assert (
        "| `events[].epochs[].loss` | number or null |  | mean training loss of the epoch |"
        in lines
    )


def test_costs_that_depend_on_the_device_are_times_memory_and_energy() -> None:
    by_device = {name for name, cost in COSTS.items() if cost.by_device}
    assert by_device == {
        *("train_seconds", "step_ms", "inference_ms", "peak_run_bytes", "peak_step_bytes"),
        *("peak_inference_bytes", "inference_sparse_ms", "step_sparse_ms"),
        *("scoring_seconds", "peak_scoring_bytes"),
        *("energy_kwh", "emissions_g"),
    }


def test_every_cost_has_a_label() -> None:
    assert all(isinstance(cost, Quantity) and cost.label for cost in COSTS.values())


def test_what_this_version_does_not_know_is_kept() -> None:
    later = copy.deepcopy(RECORD)
    later["quality"]["further"]["colour"] = 0.5
    later["cost"]["water_l"] = 1.5
    later["weather"] = {"rain": True}
    later["events"].append({"verb": "dance", "spent": 40, "partners": [1, 2]})
    assert decode(encode(later)) == later
    assert encode(decode(encode(later))) == encode(later)


@pytest.mark.parametrize(
    ("text", "found"),
    [("1e999", None), ("NaN", None), ('"\\ud800"', "\ud800"), ("1" + 30 * "0", 10**30)],
)
def test_what_is_no_strict_json_is_read_as_python_reads_it(text: str, found: object) -> None:
    content = encode(RECORD).replace(b'"width": 32', b'"width": ' + text.encode())
    assert decode(content)["settings"]["width"] == found


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
            leaves = dict(frame.leaves(broken, ""))
            assert leaves


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"quality": None}, "$.quality: expected an object, got null"),
        ({"quality__test": "good"}, "$.quality.test: expected a number or null, got a string"),
        ({"quality__test": True}, "$.quality.test: expected a number or null, got true or false"),
        ({"events": {}}, "$.events: expected a list, got an object"),
        ({"status": "fine"}, "$.status: unknown value 'fine'"),
        ({"status": ["done"]}, "$.status: expected a string, got a list"),
        ({"cost": {}}, "$.cost: lacks 'train_seconds'"),
        ({"run_id": "../elsewhere"}, "$.run_id: cannot be the name of a folder"),
        ({"run_id": ".."}, "$.run_id: cannot be the name of a folder"),
        ({"run_id": "ü" * 128}, "$.run_id: cannot be the name of a folder"),
        ({"events": [{"verb": "prune", "spent": 1}]}, "$.events[0]: lacks 'units'"),
    ],
)
def test_the_first_thing_that_is_wrong_is_named(change: dict[str, Any], what: str) -> None:
    assert damage(record(**change)) == what


def test_a_failed_run_has_no_costs_and_is_not_damaged() -> None:
    nothing = {"cost": {}, "events": [], "sparsity": {"requested": 0.98}, "provenance": {}}
    assert damage({**RECORD, "status": "failed", "reason": "boom", **nothing}) is None


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[" * 100_000, "is damaged; remove it to run again"),
        ("null", "is damaged; remove it to run again"),
        (
            json.dumps(record(quality=None)),
            r"is damaged: \$\.quality: expected an object, got null; remove it to run a",
        ),
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
    with pytest.raises(DamagedFile, match=r"record.json cannot be read: Is a directory$"):
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
    complaint = f"{RUN}/record.json cannot be read: Permission denied"
    said = [line for line in ended.stderr.splitlines() if not line.startswith(">")]
    path = store.folder / complaint
    assert said == [
        *(f"error: results/{complaint}", "2"),
        "0",
        *(f"warning: results/{complaint}", "0"),
        *(f"warning: {path}", f"warning: {path}", "0"),
    ]
    assert complaint in ended.stdout
