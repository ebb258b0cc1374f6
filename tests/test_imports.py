"""Who may import whom."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from harness.record import check
from harness.registry import Registry
from harness.results.example import example
from harness.spec import plan
from harness.storage.store import Store

PROJECT = Path(__file__).resolve().parent.parent
FOLDERS = ("harness", "tasks", "pruners", "reports", "benchmarks")

FORBIDDEN = {
    "harness": {"tasks", "pruners", "reports", "benchmarks", "tests"},
    "tasks": {"pruners", "reports", "benchmarks", "tests"},
    "pruners": {"tasks", "reports", "benchmarks", "tests"},
    "reports": {"torch", "tasks", "pruners", "benchmarks", "tests"},
    "benchmarks": {"tests"},
}
"""What the files of a folder may not import: the rest reaches them through the registry only."""


def imported(source: str) -> set[str]:
    """Return the modules that a source imports, anywhere in it; relative ones begin with a dot."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=module, level=level, names=names):
                package = "." * level + (module or "")
                # What is imported from the harness itself is one of its modules.
                members = names if package == "harness" else []
                found |= {package, *(f"{package}.{alias.name}" for alias in members)} - {"harness"}
    return found


def trespasses(folder: str, source: str) -> set[str]:
    return {m for m in imported(source) if m.partition(".")[0] in FORBIDDEN.get(folder, ())}


def sources(folder: str) -> list[Path]:
    return sorted((PROJECT / folder).rglob("*.py"))


CONTRACTS = {
    f"harness.{name}"
    for name in (
        *("data.cache", "data.decoded", "data.description", "data.download", "data.loading"),
        "data.official",
        *(
            "costs.operations",
            "errors",
            "foreign_models",
            "functional",
            "layer_inputs",
            "prunable",
            "registry",
            "run",
        ),
        *("scoring", "seeds", "settings", "task", "trigger", "units", "weight_matrices"),
    )
}
"""All of the harness that tasks and pruners see."""


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_no_folder_reaches_where_it_must_not(folder: str) -> None:
    assert sources(folder)
    found = {str(file): trespasses(folder, file.read_text()) for file in sources(folder)}
    assert {file: modules for file, modules in found.items() if modules} == {}


@pytest.mark.parametrize("folder", ["tasks", "pruners"])
def test_tasks_and_pruners_know_the_contracts_only(folder: str) -> None:
    for file in sources(folder):
        known = {m for m in imported(file.read_text()) if m.partition(".")[0] == "harness"}
        assert known <= CONTRACTS, file


def test_a_domain_does_not_reach_into_another() -> None:
    """What tasks on images share is in one domain; what networks share is beside the domains."""
    domains = [path.name for path in (PROJECT / "tasks").iterdir() if path.is_dir()]
    for domain in domains:
        others = {f"tasks.{other}" for other in domains if other not in (domain, "images")}
        for file in sources(f"tasks/{domain}"):
            reached = {".".join(module.split(".")[:2]) for module in imported(file.read_text())}
            assert not reached & others, file
    for file in sources("tasks/images"):
        reached = {m for m in imported(file.read_text()) if m.startswith("tasks.")}
        assert {".".join(module.split(".")[:2]) for module in reached} <= {
            "tasks.images",
            "tasks.attention",
        }, file


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_import_names_the_whole_path(folder: str) -> None:
    """So that these rules see it, and a reader finds it."""
    for file in sources(folder):
        assert not {m for m in imported(file.read_text()) if m.startswith(".")}, file


def test_an_import_is_seen_wherever_it_hides() -> None:
    source = (
        "def f():\n    if True:\n        from pruners.weights import Weights\nimport tasks.ptb as p"
    )
    assert trespasses("harness", source) == {"pruners.weights", "tasks.ptb"}
    assert trespasses("tasks", source) == {"pruners.weights"}
    assert trespasses("reports", "import torch.nn as nn") == {"torch.nn"}


def room(module: str) -> str:
    """Return the folder or top-level file of the project that a module lies in."""
    first, _, rest = module.partition(".")
    return f"{first}.{rest.partition('.')[0]}" if first == "harness" and rest else first


def test_imports_between_folders_go_in_one_direction() -> None:
    """A room is a folder of the harness or a file beside them, or another folder of the project."""
    rooms: dict[str, set[str]] = {}
    for folder in FOLDERS:
        for file in sources(folder):
            own = room(".".join(file.relative_to(PROJECT).with_suffix("").parts))
            seen = {room(m) for m in imported(file.read_text()) if m.partition(".")[0] in FOLDERS}
            rooms.setdefault(own, set()).update(seen - {own})
    try:
        order = list(TopologicalSorter(rooms).static_order())
    except CycleError as error:
        pytest.fail(f"imports form a circle: {' <- '.join(error.args[1])}")
    assert (
        order.index("harness.errors") < order.index("harness.run") < order.index("harness.engine")
    )


WITHOUT_TORCH = """
import contextlib, io, json, sys
from harness.command_line import main

def carried_out(*words):
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main(list(words))
        except SystemExit as error:
            code = error.code
    return [code, "torch" in sys.modules]

run = ["run", "--task", "digits", "--pruner", "dense"]
requests = {
    "help": ["--help"],
    "list": ["list"],
    "a matrix that is done": ["matrix", "--tasks", "digits", "--pruners", "dense"],
    "status": ["status"],
    "data": ["data", "list"],
    "a wrong request": [*run, "--seed", "-1"],
    "a run that is done": run,
    "show": ["show", "digits"],
    "compare": ["compare", "digits", "digits"],
    "report": ["report"],
}
print(json.dumps({name: carried_out(*words) for name, words in requests.items()}))
"""


def test_what_needs_no_torch_does_not_wait_for_it(tmp_path: Path) -> None:
    wanted = plan(Registry(), "digits", "dense")
    store = Store(tmp_path / "results")
    store.open_run(wanted.run_id)
    store.save(check(example(run_id=wanted.run_id, spec=wanted.spec.as_dict())))
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(ended.stdout)
    assert found.pop("a wrong request") == [2, False]
    assert found == {words: [0, False] for words in found}
    assert f"{wanted.run_id} is already done" in ended.stderr
    assert "seed -1 is negative" in ended.stderr
    assert len(ended.stderr.splitlines()) == 2


def test_listing_does_not_wait_for_pandas() -> None:
    code = (
        "import sys; from harness.command_line import main; main(['list', 'pruners', '--json']); "
        "sys.exit(any(name in sys.modules for name in ('pandas', 'torch', 'matplotlib')))"
    )
    ended = subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    assert ended.returncode == 0


def test_processes_whose_memory_the_benchmarks_measure_hold_no_torch() -> None:
    code = (
        "import sys; import benchmarks.speed.__main__, benchmarks.speed.commands; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT).returncode == 0
