"""One process at a time holds the folder of a run."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from harness.errors import Interrupted, RequestError, RunFailed
from harness.signals import Stop
from harness.storage.files import exclusive_lock, is_held
from tests.helpers.disk import FailingDisk, full_disk, when


def test_the_holder_names_itself_while_it_holds_the_folder(tmp_path: Path) -> None:
    with exclusive_lock(tmp_path, pytest.fail, Stop()):
        assert (tmp_path / "owner").read_text().startswith("process ")
    assert not (tmp_path / "owner").exists()


def test_another_process_waits_and_says_for_which(tmp_path: Path) -> None:
    holder, lines = FileLock(tmp_path / "lock", thread_local=False), list[str]()
    holder.acquire()
    (tmp_path / "owner").write_text("process 7")
    threading.Timer(0.2, holder.release).start()
    began = time.monotonic()
    with exclusive_lock(tmp_path, lines.append, Stop()):
        assert time.monotonic() - began > 0.15
    assert lines == [f"{tmp_path.name} is being run by process 7; waiting for it to end"]


def test_a_request_to_stop_ends_the_waiting(tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / "lock"),
        pytest.raises(Interrupted),
        exclusive_lock(tmp_path, lambda line: None, Stop(requested=True)),
    ):
        pytest.fail("two processes hold one run")


def test_the_files_of_a_killed_process_do_not_block(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    (tmp_path / "owner").write_text("process 7")
    with exclusive_lock(tmp_path, pytest.fail, Stop()):
        pass


def test_a_missing_folder_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    with (
        pytest.raises(RequestError, match=r"^results folder \S+/results: Not a directory$"),
        exclusive_lock(tmp_path / "results" / "run", pytest.fail, Stop()),
    ):
        pass


def test_a_failure_releases_the_lock(tmp_path: Path) -> None:
    with (
        FailingDisk(when("write"), full_disk).in_use(),
        pytest.raises(RunFailed, match="No space left"),
        exclusive_lock(tmp_path, pytest.fail, Stop()),
    ):
        pass
    with exclusive_lock(tmp_path, pytest.fail, Stop()):
        pass


def test_a_folder_that_may_not_be_written_counts_as_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lock").touch()

    def refuse(lock: FileLock, timeout: float) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert not is_held(tmp_path)
