"""What README and guide tell a stranger to type can be typed, and their links lead somewhere."""

from __future__ import annotations

import configparser
import re
import shlex
import textwrap
import tomllib
from pathlib import Path

import pytest

from harness import record
from harness.command_line import main, parse
from harness.commands.run import requested
from harness.registry import Kind, Registry
from tests.helpers.own_data import write_own_data

PROJECT = Path(__file__).resolve().parent.parent
README = (PROJECT / "README.md").read_text(encoding="utf-8")
GUIDE = {path.name: path.read_text(encoding="utf-8") for path in PROJECT.glob("docs/guide/*.md")}
PAGES = [
    PROJECT / name
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")
]

INDENTED = r"(?:^    .*\n|^\n+(?=    ))+"
FENCED = r"^```\w+\n(.*?)^```$"
CODE = [
    *(textwrap.dedent(block).strip() for block in re.findall(INDENTED, README, re.MULTILINE)),
    *re.findall(FENCED, "\n".join(GUIDE.values()), re.MULTILINE | re.DOTALL),
]
"""The blocks of code of the README and of the guide."""
LINES = [line.partition("  #")[0].strip() for block in CODE for line in block.splitlines()]
HARNESS = [
    line.partition("-m harness ")[2] for line in LINES if line.startswith("python -m harness ")
]


def own(kind: Kind) -> list[str]:
    """Return what this project registers, whatever else is installed."""
    entries = Registry().of_kind(kind).values()
    return [e.name for e in entries if (e.module or "").partition(".")[0] in ("tasks", "pruners")]


def test_the_tox_environments_exist() -> None:
    ini = configparser.ConfigParser(interpolation=None)
    ini.read(PROJECT / "tox.ini", encoding="utf-8")
    known = {section.partition(":")[2] for section in ini}
    known |= {f"{task}-{pruner}" for task in own("task") for pruner in own("pruner")}
    text = "\n".join([README, *GUIDE.values(), *(page.read_text() for page in PAGES)])
    named = set(re.findall(r"tox -e ([\w-]+)", text))
    assert {"demo", "tests", "run"} <= named
    assert named <= known


@pytest.mark.parametrize("line", HARNESS)
def test_the_commands_are_understood(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if re.search("=(leaves|wares|tales)", line):
        write_own_data(tmp_path)
    words = shlex.split(line)
    arguments = parse(words)
    if "--plugin" in words:
        return
    if arguments.command == "run":
        requested(arguments, Registry())
    if arguments.command == "check" and arguments.name.islower():
        Registry().find(arguments.kind, arguments.name)


@pytest.mark.parametrize("line", [line for line in LINES if " -e run -- " in line])
def test_what_is_handed_to_tox_is_understood(line: str) -> None:
    requested(parse(["run", *shlex.split(line.partition(" -- ")[2])]), Registry())


def test_there_are_commands_of_both_sorts() -> None:
    assert any(line.startswith("run ") for line in HARNESS)
    assert any(" -e run -- " in line for line in LINES)


def test_the_continuous_integration_runs_the_two_commands() -> None:
    demo, tests = CODE[0].splitlines()
    workflow = (PROJECT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    assert demo in workflow
    assert "run: .ci/run\n" in workflow
    assert tests in (PROJECT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_the_citation_agrees_with_the_package() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (PROJECT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {project['version']}\n" in citation
    assert f"license: {project['license']}\n" in citation
    assert f"- name: {project['authors'][0]['name']}\n" in citation


def test_the_readme_counts_methods_and_tasks() -> None:
    assert f"{len(own('pruner'))} methods on {len(own('task'))} tasks" in README


def test_the_table_of_data_names_the_tasks() -> None:
    (table,) = re.findall(r"^\| task \|.*?\n\n", GUIDE["data.md"], re.MULTILINE | re.DOTALL)
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == own("task")


def test_the_page_of_costs_explains_every_cost() -> None:
    page = (PROJECT / "docs" / "reference" / "costs.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"`(\w+)`", page))
    assert set(record.fields(record.Cost)) - explained == set()


def test_the_plug_in_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example, in_guide = [block for block in CODE if "@pruner(" in block]
    assert example.strip() == in_guide.strip()
    plugin = tmp_path / "example.py"
    plugin.write_text(example)
    assert main(["list", "pruners", "--plugin", str(plugin)]) == 0
    assert "late_magnitude" in capsys.readouterr().out
    assert callable(Registry([plugin]).find("pruner", "late_magnitude").load())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_the_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert missing == []


def test_the_links_of_the_example_report_lead_to_files() -> None:
    folder = PROJECT / "reports" / "example"
    page = (folder / "index.html").read_text(encoding="utf-8")
    targets = re.findall(r'(?:href|src)="([^"#:]+)"', page)
    assert [target for target in targets if not (folder / target).exists()] == []
