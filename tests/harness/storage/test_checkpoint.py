"""Checkpoints and snapshots: the newest undamaged one is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import RunFailed
from harness.storage.checkpoint import Checkpoints


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    """Three states, saved one after the other."""
    kept = Checkpoints(tmp_path, interval=0)
    for position in (1, 2, 3):
        kept.save({"position": position})
    return kept


def newest(checkpoints: Checkpoints, at_most: int = 9) -> int | None:
    state = checkpoints.newest(lambda state: state["position"] <= at_most)
    return None if state is None else int(state["position"])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_last_two_checkpoints_are_kept(checkpoints: Checkpoints, tmp_path: Path) -> None:
    assert names(tmp_path) == ["checkpoint-000002.pt", "checkpoint-000003.pt"]
    assert newest(checkpoints) == 3


def test_a_damaged_checkpoint_is_dropped_for_the_one_before(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    (tmp_path / "checkpoint-000003.pt").write_bytes(b"")
    assert newest(checkpoints) == 2
    assert names(tmp_path) == ["checkpoint-000002.pt"]


def test_a_checkpoint_that_cannot_be_used_is_dropped(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    assert newest(checkpoints, at_most=2) == 2
    assert newest(checkpoints, at_most=1) is None
    assert names(tmp_path) == []


def test_a_checkpoint_is_due_when_the_interval_has_passed(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path, interval=0).due
    assert not Checkpoints(tmp_path, interval=3600).due


def test_a_damaged_snapshot_is_reported(checkpoints: Checkpoints, tmp_path: Path) -> None:
    checkpoints.save_snapshot(7, {"position": 1})
    assert checkpoints.has_snapshot(7)
    assert checkpoints.snapshot(7) == {"position": 1}
    (tmp_path / "snapshot-000007.pt").write_bytes(b"damaged")
    assert not checkpoints.has_snapshot(7)
    with pytest.raises(RunFailed, match=r"snapshot-000007.pt is missing or damaged; run again$"):
        checkpoints.snapshot(7)


def test_clearing_leaves_all_other_files(checkpoints: Checkpoints, tmp_path: Path) -> None:
    checkpoints.save_snapshot(0, {})
    (tmp_path / "network.safetensors").write_bytes(b"")
    checkpoints.clear()
    assert names(tmp_path) == ["network.safetensors"]
