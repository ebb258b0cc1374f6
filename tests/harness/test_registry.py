"""The registry reads sources without running them, and reports a mistake in one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.errors import RequestError
from harness.registry import Entry, Registry

MINE = '''
from harness.registry import pruner

@pruner("mine", title="My method", paper="a paper")
def mine_(run, *, steps: int = 5, exact: bool = True, way: str = "up", share: float = 0.5):
    """Do it my way.

    And more.
    """
'''


def write(folder: Path, source: str, name: str = "mine.py") -> Path:
    file = folder / name
    file.write_text(source)
    return file


def minimal(name: str = "mine") -> str:
    return f'from harness.registry import pruner\n@pruner("{name}", title="T")\ndef f(run): ...\n'


def refused(*plugins: Path) -> str:
    """Return the single line that says why the plug-ins are refused."""
    with pytest.raises(RequestError) as refusal:
        Registry(plugins)
    (line,) = str(refusal.value).splitlines()
    return line


class TestReading:
    def test_a_definition_is_read_from_its_source(self, tmp_path: Path) -> None:
        entry = Registry([write(tmp_path, MINE)]).find("pruner", "mine")
        assert (entry.kind, entry.name, entry.attribute) == ("pruner", "mine", "mine_")
        assert (entry.title, entry.summary) == ("My method", "Do it my way.")
        assert entry.arguments == {"title": "My method", "paper": "a paper"}
        assert entry.options == {"steps": 5, "exact": True, "way": "up", "share": 0.5}

    def test_reading_does_not_run_the_file(self, tmp_path: Path) -> None:
        plugin = write(tmp_path, minimal() + "raise SystemExit('I was run')\n")
        assert Registry([plugin]).find("pruner", "mine").title == "T"

    def test_plug_ins_are_listed_among_the_others_in_alphabetical_order(
        self, tmp_path: Path
    ) -> None:
        names = list(Registry([write(tmp_path, MINE)]).of_kind("pruner"))
        assert {"crop_u", "mine"} <= set(names)
        assert names == sorted(names)

    def test_loading_gives_the_definition(self, tmp_path: Path) -> None:
        registry = Registry([write(tmp_path, MINE)])
        assert registry.find("pruner", "mine").load().__name__ == "mine_"

    def test_the_name_of_a_registered_class_is_found(self) -> None:
        from pruners.weights import Weights

        assert Registry().name_of("units", Weights) == "weights"
        with pytest.raises(RequestError, match="dict is not registered as units"):
            Registry().name_of("units", dict)

    def test_the_version_of_a_plug_in_depends_on_its_code(self, tmp_path: Path) -> None:
        def version(source: str) -> int | str:
            return Registry([write(tmp_path, source)]).find("pruner", "mine").version

        assert version(minimal()) == version(minimal())
        assert version(minimal()) != version(minimal() + "CHANGED = True\n")

    def test_plug_ins_with_the_same_file_name_do_not_mix(self, tmp_path: Path) -> None:
        entries: list[Entry] = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            plugin = write(tmp_path / name, minimal(name) + f"f.is_from = '{name}'\n")
            entries.append(Registry([plugin]).find("pruner", name))
        assert [entry.load().is_from for entry in entries] == ["one", "two"]

    @pytest.mark.parametrize(
        ("wrong", "right"), [("crop", "crop_u"), ("earlycropu", "earlycrop_u")]
    )
    def test_an_unknown_name_is_answered_with_the_nearest(self, wrong: str, right: str) -> None:
        with pytest.raises(RequestError, match=f"unknown pruner '{wrong}'; did you mean '{right}'"):
            Registry().find("pruner", wrong)

    def test_a_name_like_no_other_is_answered_with_all(self) -> None:
        with pytest.raises(RequestError, match="known: cartpole, "):
            Registry().find("task", "xyz")


class TestBadPlugIns:
    def test_a_missing_file_is_refused(self, tmp_path: Path) -> None:
        assert "No such file" in refused(tmp_path / "missing.py")

    def test_a_folder_is_refused(self, tmp_path: Path) -> None:
        assert "Is a directory" in refused(tmp_path)

    def test_a_file_that_is_not_python_is_refused(self, tmp_path: Path) -> None:
        assert "is not Python: invalid syntax, line 1" in refused(write(tmp_path, "Some text.\n"))

    def test_a_file_that_is_not_text_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "mine.py").write_bytes(b"\xff\xfe\x00@pruner(")
        assert "is not a text in UTF-8" in refused(tmp_path / "mine.py")

    def test_a_file_name_that_python_cannot_import_is_refused(self, tmp_path: Path) -> None:
        assert "ends in .py" in refused(write(tmp_path, minimal(), "mine.txt"))

    def test_a_file_that_registers_nothing_is_refused(self, tmp_path: Path) -> None:
        assert "registers nothing" in refused(write(tmp_path, "def mine(run): ...\n"))

    def test_a_name_that_is_taken_is_refused(self, tmp_path: Path) -> None:
        line = refused(write(tmp_path, minimal("crop_u")))
        assert line.endswith("name 'crop_u' is taken by pruners.methods.before_training")

    def test_one_name_in_two_plug_ins_is_refused(self, tmp_path: Path) -> None:
        plugins = [write(tmp_path, minimal(), name) for name in ("first.py", "second.py")]
        line = refused(*plugins)
        assert line.startswith(f"plug-in {plugins[1]}: ")
        assert line.endswith(f"name 'mine' is taken by {plugins[0]}")

    def test_one_name_twice_in_a_plug_in_is_refused(self, tmp_path: Path) -> None:
        assert "'mine' is taken" in refused(write(tmp_path, minimal() + minimal()))

    @pytest.mark.parametrize(
        ("decorator", "complaint"),
        [
            ('@pruner("mine", title="A" + str(1))', "read without running the file"),
            ("@pruner(NAME, title='A')", "read without running the file"),
            ("@pruner('mine', **MORE)", "read without running the file"),
            ("@pruner('mine')", "@pruner: missing a required argument: 'title'"),
            ("@pruner('mine', title='A', titel='B')", "unexpected keyword argument 'titel'"),
            ("@pruner('mine', 'A')", "@pruner: too many positional arguments"),
            ("@pruner('../mine', title='A')", "not made of letters, digits and underscores"),
            ("@pruner(3, title='A')", "not made of letters, digits and underscores"),
            ("@task('mine', title='A')", "@task: missing a required"),
        ],
    )
    def test_a_decorator_that_cannot_be_read_is_refused(
        self, tmp_path: Path, decorator: str, complaint: str
    ) -> None:
        line = refused(write(tmp_path, f"\n{decorator}\ndef mine(run): ...\n"))
        assert line.startswith("mine.py, line 2: ")
        assert complaint in line

    @pytest.mark.parametrize("parameter", ["steps", "steps=None", "steps=[1]", "steps=2 * k"])
    def test_an_option_without_a_plain_default_is_refused(
        self, tmp_path: Path, parameter: str
    ) -> None:
        source = f"@pruner('mine', title='A')\ndef mine(run, *, {parameter}): ...\n"
        assert "the option 'steps' needs a default" in refused(write(tmp_path, source))

    def test_an_option_that_could_not_be_set_is_refused(self, tmp_path: Path) -> None:
        source = "@pruner('mine', title='A')\ndef mine(run, steps: int = 3): ...\n"
        line = refused(write(tmp_path, source))
        assert line == (
            "mine.py, line 1: pruner 'mine': options follow a *, as in def mine(run, *, steps=...)"
        )

    @pytest.mark.parametrize(
        ("line", "complaint"),
        [
            ("import there_is_no_such_module", "ModuleNotFoundError: No module named 'there_is"),
            ("1 / 0", "ZeroDivisionError: division by zero"),
            ("raise SystemExit(3)", "SystemExit: 3"),
            ("return", "SyntaxError: 'return' outside function"),
        ],
    )
    def test_a_file_that_does_not_import_is_reported_when_it_is_loaded(
        self, tmp_path: Path, line: str, complaint: str
    ) -> None:
        entry = Registry([write(tmp_path, f"{minimal()}{line}\n")]).find("pruner", "mine")
        for _ in range(2):
            with pytest.raises(RequestError) as refusal:
                entry.load()
        assert str(refusal.value).startswith("pruner 'mine': mine.py")
        assert f"does not import: {complaint}" in str(refusal.value)
        if "Syntax" not in complaint:
            assert ", line 4:" in str(refusal.value)


def declared(*, settings: Mapping[str, Any] | None = None, **changed: Any) -> str:
    """Return the source of a task whose arguments are changed from correct ones."""
    recipe: dict[str, object] = {
        "epochs": 2,
        "batch_size": 8,
        "optimiser": "sgd",
        "learning_rate": 0.1,
        "weight_decay": 0.0,
        "clip": 10,
    }
    declared = {**recipe, **(settings or {})}
    arguments = {
        "title": "Mine",
        "metric": "m",
        "goal": "max",
        "data": ":describe",
        "profiles": {"smoke": {}},
        "settings": {name: value for name, value in declared.items() if value is not None},
        **changed,
    }
    words = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return f"@task('mine', {words})\nclass Mine: ...\n"


class TestDeclarations:
    """A declaration that the engine could not use is refused when the file is read."""

    def test_a_correct_one_is_accepted(self, tmp_path: Path) -> None:
        entry = Registry([write(tmp_path, declared())]).find("task", "mine")
        assert entry.arguments["goal"] == "max"

    @pytest.mark.parametrize(
        ("changed", "complaint"),
        [
            ({"goal": "maximum"}, "goal='maximum' is unknown; did you mean 'max'?"),
            ({"goal": "bigger"}, "goal='bigger' is unknown; known: max, min"),
            ({"data": "describe"}, "data='describe' is not of the form MODULE:FUNCTION"),
            ({"settings": {"clip": None}}, "the setting 'clip' is missing (norm to which"),
            ({"settings": {"epochs": 0}}, "the setting 'epochs' is 0 in the profile 'smoke', not"),
            ({"settings": {"clip": "ten"}}, "the setting 'clip' is 'ten' in the profile 'smoke'"),
            ({"settings": {"optimiser": "lion"}}, "'optimiser' is 'lion' in the profile 'smoke'"),
            ({"profiles": {"smoke": {"batch_size": 1.5}}}, "'batch_size' is 1.5 in the profile"),
            (
                {"settings": {"width": 32}, "profiles": {"smoke": {"width": 32.5}}},
                "'width' is 32.5 in the profile 'smoke', not a whole number like its default 32",
            ),
            ({"limits": {"steps": "(0, 1]"}}, "limits: there is no 'steps'"),
            (
                {"limits": {"clip": "above 1"}},
                "'above 1' of 'clip' is not an interval, as in '(0, 1]'",
            ),
        ],
    )
    def test_a_wrong_one_is_refused(
        self, tmp_path: Path, changed: dict[str, Any], complaint: str
    ) -> None:
        line = refused(write(tmp_path, declared(**changed)))
        assert line.startswith("mine.py, line 1: ")
        assert complaint in line

    def test_all_missing_settings_are_named(self, tmp_path: Path) -> None:
        missing = {"learning_rate": None, "clip": None}
        line = refused(write(tmp_path, declared(settings=missing)))
        assert line.endswith("missing: learning_rate, clip")

    def test_a_pruner_of_an_unknown_group_is_refused(self, tmp_path: Path) -> None:
        line = refused(write(tmp_path, minimal().replace("title", "group='magic', title")))
        assert "pruner 'mine': group='magic' is unknown; known: control, dense," in line


class TestEntryPoints:
    """Plug-ins in installed distributions."""

    @pytest.fixture
    def installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder of installed packages."""
        monkeypatch.syspath_prepend(str(tmp_path))
        return tmp_path

    @staticmethod
    def install(folder: Path, distribution: str, module: str, source: str | None) -> None:
        information = folder / f"{distribution}-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Name: {distribution}\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(
            f"[pruning_benchmark.pruners]\ntheirs = {module}\n"
        )
        if source is not None:
            file = folder / f"{module.replace('.', '/')}.py"
            file.parent.mkdir(exist_ok=True)
            file.write_text(source)

    def test_installed_plug_ins_are_found(self, installed: Path) -> None:
        self.install(installed, "their-pruners", "their_pruners", minimal("theirs"))
        entry = Registry().find("pruner", "theirs")
        assert (entry.module, entry.version) == ("their_pruners", 1)
        assert entry.load().__name__ == "f"

    @pytest.mark.parametrize(
        ("source", "complaint"),
        [
            (None, "there is no module 'broken'"),
            ("@pruner(NAME)\ndef f(run): ...\n", "read without running the file"),
            ("@pruner('f', title='F')\ndef f(run: ...\n", "SyntaxError: '(' was never closed"),
            (
                minimal("crop_u"),
                "the pruner name 'crop_u' is taken by pruners.methods.before_training",
            ),
        ],
    )
    def test_a_broken_one_gives_a_warning_and_leaves_the_others(
        self,
        installed: Path,
        capsys: pytest.CaptureFixture[str],
        source: str | None,
        complaint: str,
    ) -> None:
        self.install(installed, "a-broken-one", "broken", source)
        known = Registry().of_kind("pruner")
        assert known["crop_u"].module == "pruners.methods.before_training"
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("warning: entry point 'theirs' of a-broken-one: ")
        assert complaint in line

    def test_a_package_that_does_not_import_is_broken(
        self, installed: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.install(installed, "a-broken-one", "their_package.pruners", minimal())
        (installed / "their_package" / "__init__.py").write_text("1 / 0\n")
        assert "crop_u" in Registry().of_kind("pruner")
        assert "ZeroDivisionError" in capsys.readouterr().err

    def test_an_installed_module_that_does_not_import_is_reported_in_one_line(
        self, installed: Path
    ) -> None:
        self.install(installed, "lacking", "lacking", minimal("theirs") + "import not_there\n")
        with pytest.raises(RequestError, match=r"'theirs': lacking\.py, line 4: does not import"):
            Registry().find("pruner", "theirs").load()
