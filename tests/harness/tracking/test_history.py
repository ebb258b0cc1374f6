"""What a run has done so far, whether it is done, underway or has failed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.contracts import StopAfter
from harness.errors import Interrupted
from harness.storage.progress import EPOCHS
from harness.storage.store import Store
from harness.tracking.history import Point, read_history, stamp
from tests.helpers.attempts import attempts
from tests.helpers.records import RECORD, record
from tests.helpers.workbench import WATCHING, Workbench


def test_a_record_gives_a_point_for_each_epoch_and_each_pruning(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open_run(RECORD["run_id"])
    store.save(RECORD)

    history = read_history(tmp_path / RECORD["run_id"])

    first = {"position": 10, "loss": 1.5, "validation/accuracy": 80.0, "trigger": 0.015}
    assert history.points[:2] == [Point(10, first), Point(10, {"sparsity": 0.98})]
    assert [point.step for point in history.points] == [10, 10, 20, 30, 40]
    assert (history.status, history.is_final) == ("done", True)
    assert history.summary is not None
    assert history.summary["quality/test"] == 97.25
    assert history.summary["cost/step_ms"] == 20.0
    assert "cost/step_sparse_ms" not in history.summary  # it is null


def test_a_run_that_has_not_begun_has_no_history(tmp_path: Path) -> None:
    history = read_history(tmp_path / "later")
    assert (history.points, history.status, history.summary) == ([], None, None)


def test_a_network_that_is_still_to_be_measured_keeps_a_run_open(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open_run(RECORD["run_id"])
    store.save(record(cost__measured_in="no process yet"))
    history = read_history(tmp_path / RECORD["run_id"])
    assert (history.status, history.is_final) == ("done", False)


@pytest.mark.parametrize("pruner", ["dense", "crop_u", "watching"])
def test_each_history_of_a_run_begins_with_the_one_before(tmp_path: Path, pruner: str) -> None:
    """The epochs of a training underway are those that the journal will have."""
    run = attempts(Workbench(tmp_path, [WATCHING]), pruner)
    before: list[Point] = []
    grew_at = []
    for steps in range(3, 100, 6):
        try:
            run.go(StopAfter(steps=6))
        except Interrupted:
            points = read_history(run.folder).points
            assert points[: len(before)] == before
            if len(points) > len(before):
                grew_at.append(steps)
            before = points
        else:
            break
    history = read_history(run.folder)
    assert len(grew_at) > 1
    assert history.points[: len(before)] == before
    assert history.status == "done"
    assert not (run.folder / EPOCHS).exists()


def test_epochs_of_another_training_do_not_count(bench: Workbench) -> None:
    """A run whose later operations were forgotten has the file of one of them."""
    run = attempts(bench, "dense")
    with pytest.raises(Interrupted):
        run.go(StopAfter(steps=12))
    assert read_history(run.folder).points
    lines = (run.folder / EPOCHS).read_text().splitlines()
    assert json.loads(lines[0]) == {"operation": 0}
    (run.folder / EPOCHS).write_text("\n".join(['{"operation": 2}', *lines[1:], ""]))
    assert read_history(run.folder).points == []


@pytest.mark.parametrize("rest", ["", '{"spent": 20, "lo', "nonsense\n"])
def test_a_line_that_is_being_written_waits(bench: Workbench, rest: str) -> None:
    run = attempts(bench, "dense")
    with pytest.raises(Interrupted):
        run.go(StopAfter(steps=12))
    whole = read_history(run.folder).points
    with (run.folder / EPOCHS).open("a") as file:
        file.write(rest)
    assert read_history(run.folder).points == ([] if rest.endswith("\n") else whole)


def test_the_stamp_differs_after_the_run_has_done_something(bench: Workbench) -> None:
    run = attempts(bench, "dense")
    seen = [stamp(run.folder)]
    with pytest.raises(Interrupted):
        run.go(StopAfter(steps=12))
    seen.append(stamp(run.folder))
    assert stamp(run.folder) == seen[-1]
    run.go()
    seen.append(stamp(run.folder))
    assert len(set(seen)) == 3
