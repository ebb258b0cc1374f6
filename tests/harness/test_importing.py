"""A user's modules named ``tasks`` or ``pruners`` do not hide those of this project."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder whose modules have the names of this project's packages."""
    for name in ("tasks.py", "reports.py", "benchmarks/__init__.py", "pruners/__init__.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("raise ImportError('not this one')\n")
    return tmp_path


def python(folder: Path, *words: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, with this project importable as if it were installed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (path, str(PROJECT))))}
    environment.pop("PYTHONSAFEPATH", None)
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("path", ["", "."])
def test_the_module_finds_its_own_tasks(folder: Path, path: str) -> None:
    ended = python(folder, "-m", "harness", "list", path=path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "\n  digits " in ended.stdout
    assert "\n  snip " in ended.stdout


def test_the_console_script_finds_them_beside_a_users_own_harness(folder: Path) -> None:
    (folder / "harness.py").write_text("raise ImportError('not this one')\n")
    script = folder / "bin" / "pruning-benchmark"
    script.parent.mkdir()
    script.write_text(
        "import sys\nfrom harness.__main__ import main\n"
        "if __name__ == '__main__':\n    sys.exit(main())\n"
    )
    ended = python(folder, str(script), "list", "tasks")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "\n  digits " in ended.stdout


PROCESSES = """
import multiprocessing
import sys
from importlib.util import find_spec

from harness.importing import own_packages_first


def main():
    own_packages_first()
    for method in ("spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload(["harness.importing", "pruners"])
        with context.Pool(1) as pool:
            for name in ("tasks", "pruners", "reports", "benchmarks"):
                print(pool.apply(find_spec, (name,)).origin)


if __name__ == "__main__":
    main()
"""


def test_child_processes_find_them_too(folder: Path) -> None:
    script = folder / "elsewhere" / "script.py"
    script.parent.mkdir()
    script.write_text(PROCESSES)
    ended = python(folder, str(script))
    assert ended.stderr == ""
    names = ("tasks", "pruners", "reports", "benchmarks")
    assert ended.stdout.splitlines() == 2 * [str(PROJECT / name / "__init__.py") for name in names]


def test_a_checkout_finds_itself() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    ended = subprocess.run(
        [
            sys.executable,
            "-S",
            "-c",
            "import sys; import harness.importing as i; i.own_packages_first(); print(sys.path[0])",
        ],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == "\n"
