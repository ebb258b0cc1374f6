"""A plug-in of several files imports its siblings, and their code is part of its version."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from harness.errors import RequestError
from harness.registry import Registry

PRUNER = """
from harness.registry import pruner
{imports}

@pruner("{name}", title="T")
def f(run):
    {body}
"""


def write(folder: Path, files: Mapping[str, str] = MappingProxyType({}), **more: str) -> None:
    """Write Python files, given by their names without ``.py``."""
    for name, text in {**files, **more}.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def plugin(folder: Path, imports: str, body: str = "...", name: str = "mine") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "mine.py"
    file.write_text(PRUNER.format(imports=imports, body=body, name=name))
    return file


def loaded(file: Path, name: str = "mine") -> Any:
    return Registry([file]).find("pruner", name).load()


def version(file: Path) -> int | str:
    return Registry([file]).find("pruner", "mine").version


IMPORTS = {
    "import helpers": "helpers.VALUE",
    "import helpers as h": "h.VALUE",
    "from helpers import VALUE": "VALUE",
    "from . import helpers": "helpers.VALUE",
    "from .helpers import VALUE": "VALUE",
    "import package.inner": "package.inner.VALUE",
    "import package.inner as inner": "inner.VALUE",
    "from package import inner": "inner.VALUE",
    "from package.inner import *": "VALUE",
    "from package import re_exported": "re_exported",
    "from .package.inner import VALUE": "VALUE",
    "from folder.deep import VALUE": "VALUE",
    "import chain": "chain.VALUE",
}
FILES = {
    "helpers": "VALUE = 7\n",
    "package/__init__": "from .inner import VALUE as re_exported\n",
    "package/inner": "from . import deeper\nVALUE = deeper.VALUE\n",
    "package/deeper": "VALUE = 7\n",
    "folder/deep": "VALUE = 7\n",
    "chain": "def value():\n    import helpers\n    return helpers.VALUE\nVALUE = value()\n",
}


@pytest.mark.parametrize("statement", IMPORTS)
def test_siblings_are_imported_from_anywhere_and_enter_the_version(
    tmp_path: Path, statement: str
) -> None:
    write(tmp_path, FILES)
    file = plugin(tmp_path, statement, body=f"return {IMPORTS[statement]}")
    before = version(file)
    assert loaded(file)(None) == 7
    write(tmp_path, {name: text.replace("7", "8") for name, text in FILES.items()})
    assert version(file) != before
    assert loaded(file)(None) == 8, "the new code is imported, and not what was imported before"


def test_a_file_imported_inside_a_function_counts_too(tmp_path: Path) -> None:
    write(tmp_path, helpers="VALUE = 7\n")
    file = plugin(tmp_path, "", body="from helpers import VALUE; return VALUE")
    before = version(file)
    assert loaded(file)(None) == 7
    write(tmp_path, helpers="VALUE = 8\n")
    assert version(file) != before


def test_a_file_that_is_not_imported_does_not_count(tmp_path: Path) -> None:
    write(tmp_path, helpers="VALUE = 7\n", other="VALUE = 7\n")
    file = plugin(tmp_path, "import helpers")
    before = version(file)
    write(tmp_path, other="VALUE = 8\n")
    assert version(file) == before


def test_comments_docstrings_and_layout_do_not_count(tmp_path: Path) -> None:
    write(tmp_path, helpers="VALUE = 7\n\n\ndef f(a, b):\n    return a + b\n")
    file = plugin(tmp_path, "import helpers")
    before = version(file)
    file.write_text(file.read_text().replace("...", '"""Do it."""\n    # here\n    ...'))
    write(
        tmp_path,
        helpers='"""Helpers."""\nVALUE = (7)  # seven\ndef f(a,\n      b):\n    """Add."""\n'
        "    return (a\n            + b)\n",
    )
    assert version(file) == before


def test_a_string_that_is_no_docstring_counts(tmp_path: Path) -> None:
    write(tmp_path, helpers="VALUE = 'seven'\n")
    file = plugin(tmp_path, "import helpers")
    before = version(file)
    write(tmp_path, helpers="VALUE = 'eight'\n")
    assert version(file) != before


def test_the_same_files_in_another_folder_are_the_same_plug_in(tmp_path: Path) -> None:
    versions = set()
    for name in ("here", "there"):
        write(tmp_path / name, FILES)
        versions.add(version(plugin(tmp_path / name, "import package.inner, helpers")))
    assert len(versions) == 1


def test_plug_ins_with_siblings_of_the_same_name_do_not_mix(tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        write(tmp_path / name, helpers=f"NAME = '{name}'\n")
        imports = "import helpers\nimport sys\n"
        files.append(plugin(tmp_path / name, imports, "return helpers.NAME", name))
    registry = Registry(files)
    said = [registry.find("pruner", name).load()(None) for name in ("one", "two")]
    assert said == ["one", "two"]
    assert "helpers" not in sys.modules


def test_two_plug_ins_in_one_folder_share_their_siblings(tmp_path: Path) -> None:
    write(tmp_path, helpers="class Shared: ...\n")
    files = [tmp_path / "a.py", tmp_path / "b.py"]
    for file in files:
        text = PRUNER.format(imports="import helpers", body="return helpers.Shared", name=file.stem)
        file.write_text(text)
    registry = Registry(files)
    first, second = (registry.find("pruner", name).load()(None) for name in ("a", "b"))
    assert first is second


def test_a_plug_in_inside_a_package_can_import_the_package(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "mine/__init__": "NAME = 'package'\n",
            "mine/sub/__init__": "",
            "mine/sub/helpers": "VALUE = 7\n",
            "mine/other": "VALUE = 7\n",
        },
    )
    statements = (
        "from .helpers import VALUE",
        "from ..other import VALUE",
        "from mine.sub.helpers import VALUE",
        "from mine import other; VALUE = other.VALUE",
        "from helpers import VALUE",
    )
    for statement in statements:
        assert loaded(plugin(tmp_path / "mine" / "sub", statement, "return VALUE"))(None) == 7


def test_a_sibling_comes_before_installed_packages_and_after_python_and_this_project(
    tmp_path: Path,
) -> None:
    write(tmp_path, packaging="HERE = True\n", json="HERE = True\n", tasks="HERE = True\n")
    file = plugin(
        tmp_path,
        "import packaging, json, tasks",
        "return [hasattr(module, 'HERE') for module in (packaging, json, tasks)]",
    )
    assert loaded(file)(None) == [True, False, False]


def test_data_may_be_described_in_a_sibling(tmp_path: Path) -> None:
    write(
        tmp_path,
        my_data="from harness.data.description import DataDescription\n"
        "def describe(profile, settings, folder):\n"
        "    return DataDescription('real', 'mine', '0' * 64)\n",
        mine="@task('mine', title='M', metric='m', goal='max', data='my_data:describe', "
        "settings={}, profiles={})\nclass Mine: ...\n",
    )
    entry = Registry([tmp_path / "mine.py"]).find("task", "mine")
    assert entry.describe()("smoke", {}, tmp_path).name == "mine"
    before = entry.version
    (tmp_path / "my_data.py").write_text((tmp_path / "my_data.py").read_text() + "OTHER = 1\n")
    assert Registry([tmp_path / "mine.py"]).find("task", "mine").version != before


def test_listing_imports_neither_the_plug_in_nor_torch(tmp_path: Path) -> None:
    write(tmp_path, helpers="raise SystemExit('I was run')\n")
    file = plugin(tmp_path, "import torch, helpers")
    words = ["list", "pruners", "--json", "--plugin", str(file)]
    code = f"import sys; from harness.command_line import main; main({words!r})\n"
    code += "assert 'torch' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path.parent, env=environment, capture_output=True
    )
    assert ended.returncode == 0, ended.stderr
    assert b'"mine"' in ended.stdout


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1 / 0\n", "helpers.py, line 1: does not import: ZeroDivisionError"),
        ("import nowhere_at_all\n", "does not import: ModuleNotFoundError: No module named 'now"),
        ("def f(:\n", "helpers.py is not Python: invalid syntax, line 1"),
    ],
)
def test_a_sibling_that_does_not_import_is_reported_in_one_line(
    tmp_path: Path, text: str, complaint: str
) -> None:
    write(tmp_path, helpers=text)
    file = plugin(tmp_path, "import helpers")
    with pytest.raises(RequestError) as refusal:
        loaded(file)
    (line,) = str(refusal.value).splitlines()
    assert line.startswith("pruner 'mine': ")
    assert complaint in line
    write(tmp_path, helpers="VALUE = 7\n")
    loaded(file)


def test_code_that_changed_after_it_was_read_is_refused(tmp_path: Path) -> None:
    write(tmp_path, helpers="VALUE = 7\n")
    entry = Registry([plugin(tmp_path, "import helpers")]).find("pruner", "mine")
    assert entry.version
    write(tmp_path, helpers="VALUE = 8\n")
    with pytest.raises(RequestError, match=r"code of mine.py has changed since it was read; run"):
        entry.load()
