"""The cache folder for decoded copies of data."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest

from harness.command_line import main
from harness.data.cache import VARIABLE, cache_folder
from harness.errors import RequestError
from harness.matrix import worker
from harness.matrix.executor import Job
from harness.registry import Registry
from harness.signals import Stop
from harness.spec import plan


def test_the_option_overrides_the_variable_which_overrides_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "home" / name)
    monkeypatch.delenv(VARIABLE)
    assert cache_folder() == tmp_path / "home" / "pruning-benchmark"
    monkeypatch.setenv(VARIABLE, str(tmp_path / "variable"))
    assert cache_folder() == tmp_path / "variable"
    assert main(["data", "check", "digits", "--cache", str(tmp_path / "Ä option")]) == 0
    assert cache_folder() == tmp_path / "Ä option"


def test_a_relative_folder_is_resolved_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.chdir(tmp_path)
    assert main(["data", "check", "digits", "--cache", "copies"]) == 0
    monkeypatch.chdir("/")
    assert cache_folder() == tmp_path / "copies"


def test_a_file_is_refused_as_a_cache_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["data", "check", "digits", "--cache", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err == f"error: --cache {tmp_path / 'file'} is not a folder\n"


def test_without_a_home_folder_a_cache_folder_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: Path("~/.cache", name))
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(RequestError, match=r"there is no home folder .*--cache DIR"):
        cache_folder()


def test_the_cache_folder_does_not_change_the_identity_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = set()
    for folder in ("one", "two"):
        monkeypatch.setenv(VARIABLE, str(tmp_path / folder))
        names.add(plan(Registry(), "nyu", "dense", profile="smoke").run_id)
    assert len(names) == 1


def test_a_job_on_another_machine_uses_the_given_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = plan(Registry(), "digits", "dense", profile="smoke")
    job = Job(wanted, (), tmp_path, checkpoint_every=60, cache=tmp_path / "named")
    monkeypatch.setenv(VARIABLE, "/of/the/other/machine")
    monkeypatch.setattr(worker, "is_held", lambda folder: True)
    worker.run_job(job, "cpu", 1, lambda line: None, Stop())
    assert cache_folder() == tmp_path / "named"
