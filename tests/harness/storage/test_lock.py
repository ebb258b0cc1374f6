from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from attempts import Disk, full_disk
from filelock import FileLock

from harness.errors import Interrupted, RequestError, RunFailed
from harness.signals import Stop
from harness.storage.files import exclusive_lock, is_held


def test_the_holder_says_who_it_is_and_leaves_no_trace(tmp_path: Path) -> None:
    with exclusive_lock(tmp_path, pytest.fail, Stop()):
        assert (tmp_path / "owner").read_text().startswith("process ")
    assert not (tmp_path / "owner").exists()


def test_another_one_waits_and_says_for_whom(tmp_path: Path) -> None:
    holder, lines = FileLock(tmp_path / "lock", thread_local=False), list[str]()
    holder.acquire()
    (tmp_path / "owner").write_text("process 7")
    threading.Timer(0.2, holder.release).start()
    began = time.monotonic()
    with exclusive_lock(tmp_path, lines.append, Stop()):
        assert time.monotonic() - began > 0.15
    assert lines == [f"{tmp_path.name} is being run by process 7; waiting for it to end"]


def test_waiting_ends_when_asked_to_stop(tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / "lock"),
        pytest.raises(Interrupted),
        exclusive_lock(tmp_path, lambda line: None, Stop(requested=True)),
    ):
        pytest.fail("two hold one run")


def test_what_a_killed_process_leaves_does_not_block(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    (tmp_path / "owner").write_text("process 7")
    with exclusive_lock(tmp_path, pytest.fail, Stop()):
        pass


def test_a_folder_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    with (
        pytest.raises(RequestError, match=r"^results folder \S+/results: Not a directory$"),
        exclusive_lock(tmp_path / "results" / "run", pytest.fail, Stop()),
    ):
        pass


def test_the_lock_is_free_again_after_a_failure(tmp_path: Path) -> None:
    with (
        Disk(lambda number, operation, name: operation == "write", full_disk).in_use(),
        pytest.raises(RunFailed, match="No space left"),
        exclusive_lock(tmp_path, pytest.fail, Stop()),
    ):
        pass
    with exclusive_lock(tmp_path, pytest.fail, Stop()):
        pass


def test_where_this_process_may_not_write_nobody_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lock").touch()

    def refuse(lock: FileLock, timeout: float) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert not is_held(tmp_path)
