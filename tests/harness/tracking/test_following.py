"""A tracker gets each moment of a run once, whatever is interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.contracts import StopAfter
from harness.errors import Interrupted, RequestError
from harness.results.records import pending_record
from harness.storage.store import FAILURE, Store
from harness.tracking.following import FOLDER, Followed, Following, followed_run
from harness.tracking.history import read_history
from tests.helpers.attempts import Attempts, attempts
from tests.helpers.records import RECORD, record
from tests.helpers.trackers import Forgetful, read_diary, steps_in
from tests.helpers.workbench import WATCHING, Workbench


def following(results: Path, *runs: Followed, name: str = "diary") -> tuple[Following, list[str]]:
    """Return what follows runs, and what it complains about."""
    complaints: list[str] = []
    return Following([name], runs, results, complaints.append), complaints


def saved(results: Path, each: Any) -> Followed:
    store = Store(results)
    folder = store.open_run(each["run_id"])
    store.save(each)
    return followed_run(each, folder)


def test_a_run_that_is_done_is_told_from_its_settings_to_its_summary(tmp_path: Path) -> None:
    run = saved(tmp_path, RECORD)
    following(tmp_path, run)[0].catch_up(last=True)
    begun, *points, ended = read_diary(tmp_path / FOLDER / "diary")
    assert begun[0] == "begun"
    assert begun[1]["width"] == 32
    assert (begun[1]["task"], begun[1]["sparsity"], begun[1]["seed"]) == ("digits", 0.98, 0)
    assert [step for step, _ in points] == [10, 10, 20, 30, 40]
    assert ended[0] == "done"
    assert ended[1]["quality/test"] == 97.25


def test_what_was_told_is_not_told_again(tmp_path: Path) -> None:
    run = saved(tmp_path, RECORD)
    following(tmp_path, run)[0].catch_up(last=True)
    diary = read_diary(tmp_path / FOLDER / "diary")
    following(tmp_path, run)[0].catch_up(last=True)
    assert read_diary(tmp_path / FOLDER / "diary") == diary


def follow(run: Attempts, stop: StopAfter | None) -> bool:
    """Make an attempt, follow it, and return whether the run is done."""
    follows, complaints = following(run.results, followed_run(pending_record(run.plan), run.folder))
    try:
        run.go(stop)
    except Interrupted:
        follows.catch_up()
    follows.catch_up(last=True)
    assert complaints == []
    return (run.folder / "record.json").exists()


@pytest.mark.parametrize(("pruner", "steps"), [("crop_u", 7), ("ltr", 17), ("watching", 9)])
def test_a_run_that_is_resumed_goes_on_in_the_same_place(
    tmp_path: Path, pruner: str, steps: int
) -> None:
    run = attempts(Workbench(tmp_path, [WATCHING]), pruner)
    while not follow(run, StopAfter(steps=steps)):
        pass
    diary = read_diary(run.results / FOLDER / "diary")
    wanted = read_history(run.folder).points
    told = [(step, values) for step, values in diary if isinstance(step, int)]
    assert told == [(point.step, point.values) for point in wanted]
    kinds = [what for what, _ in diary if isinstance(what, str)]
    assert kinds[:3] == ["begun", "interrupted", "resumed"]
    assert kinds[-2:] == ["resumed", "done"]


def test_a_tracker_that_was_killed_after_a_point_goes_on_with_the_next(tmp_path: Path) -> None:
    run = saved(tmp_path, RECORD)
    Forgetful.told = 0
    follows, complaints = following(tmp_path, run, name="forgetful")
    follows.catch_up(last=True)
    follows.catch_up(last=True)
    assert complaints == [
        "tracker 'forgetful' has failed, and is not used any further: "
        "ConnectionError: the server is gone"
    ]
    del follows  # with its lock, as if the process had ended
    Forgetful.told = -10
    following(tmp_path, run, name="forgetful")[0].catch_up(last=True)
    assert steps_in(read_diary(tmp_path / FOLDER / "forgetful")) == [10, 10, 20, 30, 40]


def test_a_run_that_another_process_follows_is_left_alone(tmp_path: Path, bench: Workbench) -> None:
    run = attempts(bench, "dense")
    with pytest.raises(Interrupted):
        run.go(StopAfter(steps=12))
    followed = followed_run(pending_record(run.plan), run.folder)
    first, _ = following(run.results, followed)
    first.catch_up()
    run.go()
    second, _ = following(run.results, followed)
    second.catch_up(last=True)
    first.catch_up(last=True)
    kinds = [what for what, _ in read_diary(run.results / FOLDER / "diary")]
    assert kinds.count("begun") + kinds.count("resumed") == 1
    assert kinds[-1] == "done"


def test_a_run_that_failed_is_shown_to_have_failed_and_may_go_on(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = store.open_run(RECORD["run_id"])
    store.save_failure(record(status="failed", events=[], cost={}), "traceback")
    run = followed_run(RECORD, folder)
    following(tmp_path, run)[0].catch_up(last=True)
    assert [what for what, _ in read_diary(tmp_path / FOLDER / "diary")] == ["begun", "failed"]
    (folder / FAILURE).unlink()
    saved(tmp_path, RECORD)
    following(tmp_path, run)[0].catch_up(last=True)
    kinds = [what for what, _ in read_diary(tmp_path / FOLDER / "diary")]
    assert kinds == ["begun", "failed", "resumed", 10, 10, 20, 30, 40, "done"]


def test_a_run_that_never_began_is_not_opened(tmp_path: Path) -> None:
    following(tmp_path, Followed(tmp_path / "later", {}))[0].catch_up(last=True)
    assert not (tmp_path / FOLDER).exists()


def test_a_damaged_record_costs_the_other_runs_nothing(tmp_path: Path) -> None:
    damaged = saved(tmp_path, record(run_id="damaged"))
    (damaged.folder / "record.json").write_text("null")
    follows, complaints = following(tmp_path, damaged, saved(tmp_path, RECORD))
    follows.catch_up(last=True)
    assert complaints == []
    assert read_diary(tmp_path / FOLDER / "diary")[-1][0] == "done"


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("diaries", "unknown tracker 'diaries'; did you mean 'diary'?"),
        ("absent", "tracker 'absent': no_such_package is not installed; pip install"),
    ],
)
def test_a_tracker_that_is_not_there_is_refused(tmp_path: Path, name: str, complaint: str) -> None:
    with pytest.raises(RequestError) as refused:
        following(tmp_path, name=name)
    assert str(refused.value).startswith(complaint)
