"""A wheel is all that a user needs: it is built, installed and used outside the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
PACKAGES = ("harness", "tasks", "pruners", "reports", "benchmarks")


def pip(*words: object) -> None:
    """Run pip without network."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, words)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this project, built from a copy: setuptools writes beside what it builds."""
    pytest.importorskip("setuptools", minversion="70.1")
    folder = tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", "example")
        shutil.copytree(PROJECT / name, folder / "source" / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (PROJECT / name).exists():
            shutil.copy(PROJECT / name, folder / "source")
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder, folder / "source")
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel is installed into."""
    folder = tmp_path_factory.mktemp("installed")
    pip("install", "--no-deps", "--no-index", "--target", folder, wheel)
    return folder


def test_it_contains_all_data_files(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    suites = {f"harness/suites/{path.name}" for path in (PROJECT / "harness/suites").iterdir()}
    typed = {f"{name}/py.typed" for name in PACKAGES if name != "benchmarks"}
    assert suites
    assert suites | typed <= packed
    assert {"reports/page.js", "reports/style.css"} <= packed
    assert not {name for name in packed if name.startswith("tests/")}


class TestOutsideTheCheckout:
    @pytest.fixture
    def python(self, installed: Path, tmp_path: Path) -> list[str]:
        """A Python in a foreign folder that finds the wheel, and libraries but not the checkout."""
        tests = PROJECT / "tests"
        found = [Path(folder) for folder in sys.path if folder]
        libraries = [
            path for path in found if path != PROJECT and tests not in (path, *path.parents)
        ]
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, [installed, *libraries])),
            "OMP_NUM_THREADS": "1",
        }
        self.folder = tmp_path
        # Without site no .pth file leads to the checkout, which an editable installation has.
        return [sys.executable, "-S"]

    def run(self, words: Sequence[str]) -> str:
        ended = subprocess.run(
            words, env=self.environment, cwd=self.folder, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def test_the_commands_work(self, python: list[str]) -> None:
        words = [*python, "-m", "harness"]
        assert "\nsuites\n" in self.run([*words, "list"])
        run = ["run", "--pairing", "cartpole-dense", "--profile", "smoke", "--device", "cpu"]
        assert "cartpole-dense-0-seed0-" in self.run([*words, *run])
        assert "1 done" in self.run(
            [*words, "matrix", "--suite", "smoke", *run[1:3], "--device", "cpu", "--dry-run"]
        )
        self.run([*words, "report"])
        assert "cartpole" in (self.folder / "report" / "index.html").read_text(encoding="utf-8")

    def test_nothing_comes_from_the_checkout(self, python: list[str]) -> None:
        code = (
            "import sys, harness, harness.engine.run_plan, reports.report, tasks, pruners\n"
            "print(harness.__version__)\n"
            "from harness.results.provenance import commit\n"
            "print(commit()['reason'])\n"
            "print(*(m.__file__ for m in list(sys.modules.values()) if getattr(m, '__file__', 0)),"
            " sep='\\n')\n"
        )
        version, reason, *files = self.run([*python, "-c", code]).splitlines()
        assert reason == f"version {version}, not run from a checkout"
        checkout = tuple(str(PROJECT / name) for name in PACKAGES)
        assert not [file for file in files if file.startswith(checkout)]
