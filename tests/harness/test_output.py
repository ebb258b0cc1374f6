"""A standard output that cannot be written to costs a warning, and never a run."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.output import Output
from harness.storage.store import Store
from tests.helpers.records import RECORD, record


class Full(io.StringIO):
    """A stream on a disk that is full."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_output_on_a_full_disk_is_lost_with_a_reason() -> None:
    out = Output(Full())
    print("ü", file=out, flush=True)
    assert out.failure is not None
    assert out.failure.strerror == "No space left on device"
    assert not out.reader_left


def test_characters_that_cannot_be_encoded_are_replaced() -> None:
    raw = io.BytesIO()
    out = Output(io.TextIOWrapper(raw, encoding="ascii"))
    print("naïve → ß", file=out, flush=True)
    assert raw.getvalue() == b"na\\xefve \\u2192 \\xdf\n"
    assert out.failure is None


def test_a_reader_that_closed_the_pipe_is_noticed() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", encoding="utf-8") as stream:
        out = Output(stream)
        print("seen enough", file=out, flush=True)
        assert out.reader_left
        print("more", file=out, flush=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a results folder that holds two finished runs."""
    store = Store(tmp_path / "resültß")
    for run_id in (RECORD["run_id"], "naïve_ß"):
        store.open_run(run_id)
        store.save(record(run_id=run_id))
    return tmp_path


def shell(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """Carry out a line of shell, in which ``harness`` is this project's command."""
    script = f'harness() {{ "{sys.executable}" -m harness "$@"; }}\n{line}\n'
    words = ["bash", "-o", "pipefail", "-c", script]
    # With a buffer, a broken pipe is noticed only at the end.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    return subprocess.run(
        words, cwd=folder, capture_output=True, text=True, env=environment, check=False
    )


LOST = (
    "warning: cannot write to standard output: No space left on device; "
    "some of the output is lost\n"
)


@pytest.mark.parametrize(
    ("redirected", "code", "said"),
    [
        (
            "> /dev/full",
            1,
            LOST,
        ),
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        ("2> /dev/full", 0, ""),
        (">&- 2>&-", 0, ""),
        ("| head -c 1", 0, ""),
    ],
)
def test_output_may_be_redirected_anywhere(
    folder: Path, redirected: str, code: int, said: str
) -> None:
    ended = shell(folder, f"harness show digits --results resültß {redirected}")
    assert (ended.returncode, ended.stderr) == (code, said)


def test_help_on_a_full_disk_gives_a_warning(folder: Path) -> None:
    ended = shell(folder, "harness --help > /dev/full")
    assert ended.returncode == 1
    assert ended.stderr.startswith(
        "warning: cannot write to standard output: No space left on device"
    )


def test_a_terminal_that_knows_only_ascii_gets_escapes(folder: Path) -> None:
    ascii_only = "export PYTHONIOENCODING=ascii LC_ALL=C"
    ended = shell(folder, f"{ascii_only}; harness show naïve_ß --results resültß")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("na\\xefve_\\xdf: done\n")
