"""Settings know their types, and what they mean."""

from __future__ import annotations

import inspect
from collections import defaultdict
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import pytest

from harness.conditions import Conditions
from harness.declarations import described_arguments
from harness.errors import RequestError
from harness.registry import Registry
from harness.settings import ON_OFF, Interval, Recipe, Setting, Settings, as_text
from harness.spec import plan

REGISTRY = Registry()


@dataclass(frozen=True, kw_only=True)
class Example(Recipe):
    width: Annotated[int, "channels"] = 4
    share: Annotated[float, "share of something", Interval("(0, 1]")] = 0.5
    model: Annotated[Literal["small", "large"], "network"] = "small"
    quick: Annotated[bool, "whether to hurry", ON_OFF] = False


EXAMPLE = Example(
    epochs=2, batch_size=8, optimiser="sgd", learning_rate=0.1, weight_decay=0.0, clip=10.0
)


class TestSettings:
    def test_they_are_read_by_attribute_and_by_name(self) -> None:
        assert EXAMPLE.width == EXAMPLE["width"] == 4
        assert {**EXAMPLE}["share"] == 0.5
        assert len(EXAMPLE) == len(list(EXAMPLE)) == 10
        with pytest.raises(KeyError):
            EXAMPLE["keys"]

    def test_they_are_described_by_their_types(self) -> None:
        described = EXAMPLE.described()
        assert described["width"] == Setting("width", 4, "channels")
        assert described["model"].choices == ("small", "large")
        assert str(described["share"].interval) == "(0, 1]"
        assert described["quick"].is_hashed_as_on_off
        assert described["epochs"].default == 2

    def test_what_is_permitted_is_said_in_words(self) -> None:
        words = {name: setting.permitted for name, setting in EXAMPLE.described().items()}
        assert words["epochs"] == "whole number, at least 1"
        assert words["clip"] == "number, at least 0"
        assert words["share"] == "number in (0, 1]"
        assert words["model"] == "small, large"
        assert words["quick"] == "true, false"

    @pytest.mark.parametrize(
        ("name", "text", "value"),
        [
            ("width", "8", 8),
            ("share", "1", 1.0),
            ("model", "large", "large"),
            ("quick", "true", True),
            ("quick", "on", True),
            ("quick", "off", False),
        ],
    )
    def test_texts_become_values(self, name: str, text: str, value: object) -> None:
        parsed = EXAMPLE.described()[name].parse(text)
        assert parsed == value
        assert type(parsed) is type(value)

    @pytest.mark.parametrize(
        ("name", "text", "complaint"),
        [
            ("width", "0", "width=0 is less than 1"),
            ("share", "0", "share=0 is outside (0, 1]"),
            ("model", "huge", "model=huge: unknown value; known: large, small"),
            ("quick", "yes", "quick=yes is neither true nor false"),
        ],
    )
    def test_wrong_texts_are_refused(self, name: str, text: str, complaint: str) -> None:
        with pytest.raises(RequestError) as refusal:
            EXAMPLE.described()[name].parse(text)
        assert str(refusal.value) == complaint

    def test_a_switch_with_the_mark_is_hashed_as_on_or_off(self) -> None:
        described = EXAMPLE.described()
        assert [described["quick"].as_hashed(value) for value in (True, False)] == ["on", "off"]
        assert described["width"].as_hashed(4) == 4

    def test_a_recipe_is_a_part_of_any_settings(self) -> None:
        assert Recipe.of(EXAMPLE) is EXAMPLE
        assert Recipe.of(dict(EXAMPLE)).learning_rate == 0.1

    def test_values_are_written_as_they_are_read(self) -> None:
        assert [as_text(value) for value in (True, 1.5, "x")] == ["true", "1.5", "x"]


class TestIntervals:
    @pytest.mark.parametrize(
        ("text", "inside"),
        [("(0, 1]", [0.5, 1]), ("[0, 1)", [0, 0.5]), ("[1, inf)", [1, 2, 1e9])],
    )
    def test_they_contain_what_they_say(self, text: str, inside: list[float]) -> None:
        values = [-1, 0, 0.5, 1, 2, 1e9]
        assert [value for value in values if value in Interval(text)] == inside

    @pytest.mark.parametrize("text", ["", "0, 1", "(0; 1)", "(a, 1)"])
    def test_other_texts_are_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"is not an interval|could not convert"):
            Interval(text)


class TestConditions:
    def test_a_contradiction_is_refused(self) -> None:
        with pytest.raises(RequestError, match=r"warmup=0\.1 belongs to schedule=equal"):
            Conditions(warmup=0.1, schedule="onecycle")

    def test_switches_are_true_or_false(self) -> None:
        switches = [name for name, value in Conditions().items() if isinstance(value, bool)]
        assert switches == ["kernel", "channels_last"]


class TestHelp:
    """Everything that can be set has a meaning in words."""

    @pytest.mark.parametrize("name", REGISTRY.of_kind("task"))
    def test_every_setting_says_what_it_means(self, name: str) -> None:
        declared = REGISTRY.find("task", name).declared
        assert [each for each, setting in declared.items() if not setting.help] == []

    @pytest.mark.parametrize("name", REGISTRY.of_kind("pruner"))
    def test_every_option_says_what_it_means(self, name: str) -> None:
        declared = REGISTRY.find("pruner", name).declared
        assert [each for each, setting in declared.items() if not setting.help] == []

    def test_every_condition_says_what_it_means(self) -> None:
        assert all(setting.help for setting in Conditions.declared().values())

    def test_no_task_repeats_the_declaration_of_another(self) -> None:
        """What two tasks share is declared in a class that both inherit from."""
        owners: dict[tuple[str, str], set[type]] = defaultdict(set)
        for entry in REGISTRY.of_kind("task").values():
            assert entry.settings_type is not None
            for field in fields(entry.settings_type):
                owner = _owner(entry.settings_type, field.name)
                owners[field.name, entry.declared[field.name].help].add(owner)
        assert {name for (name, _), classes in owners.items() if len(classes) > 1} == set()

    def test_no_name_means_one_thing_for_a_task_and_another_for_the_engine(self) -> None:
        for entry in REGISTRY.of_kind("task").values():
            assert not entry.declared.keys() & Conditions.declared().keys()


def _owner(settings: type[Settings], name: str) -> type:
    """Return the class that declares a setting."""
    return next(owner for owner in settings.__mro__ if name in inspect.get_annotations(owner))


def test_the_arguments_of_a_docstring_are_found() -> None:
    docstring = (
        "Do something.\n\nArgs:\n    run: the run.\n    steps: how often; ``0`` for once,\n"
        "        and more.\n    share (float): of all.\n\nReturns:\n    nothing: at all.\n"
    )
    assert described_arguments(docstring) == {
        "run": "the run",
        "steps": "how often; 0 for once, and more",
        "share": "of all",
    }
    assert described_arguments("Do something.") == {}


SETTINGS = """
from dataclasses import dataclass, replace
from typing import Annotated
from harness.settings import Recipe

@dataclass(frozen=True, kw_only=True)
class Mine(Recipe):
    width: Annotated[int, "how wide"] = 4

MINE = Mine(
    epochs=2, batch_size=8, optimiser="sgd", learning_rate=0.1, weight_decay=0.0, clip=10.0
)
PROFILES = {"smoke": replace(MINE, epochs=1), "embedded": MINE}
"""

TASK = """
from harness.data.description import DataDescription
from harness.registry import task
from {module} import {names}

def describe(profile, settings, data_folder):
    return DataDescription("synthetic", "mine", "0" * 64)

@task("mine", title="Mine", metric="m", goal="max", data=":describe",
      settings={settings}, profiles={profiles})
class MyTask:
    pass
"""


class TestPlugIns:
    """A plug-in of two files may declare typed settings; one of a single file has a dictionary."""

    @pytest.mark.parametrize(
        ("module", "names", "prefix"),
        [("mine_settings", "MINE, PROFILES", ""), ("typed", "mine_settings as own", "own.")],
    )
    def test_typed_settings_are_imported_from_beside_the_file(
        self, tmp_path: Path, module: str, names: str, prefix: str
    ) -> None:
        folder = tmp_path / "typed" if prefix else tmp_path
        folder.mkdir(exist_ok=True)
        (folder / "mine_settings.py").write_text(SETTINGS)
        file = tmp_path / "mine.py"
        file.write_text(
            TASK.format(
                module=module,
                names=names,
                settings=f"{prefix}MINE",
                profiles=f"{prefix}PROFILES",
            )
        )
        registry = Registry([file])
        wanted = plan(registry, "mine", "dense", profile="smoke", overrides={"width": "8"})
        assert (wanted.recipe.epochs, wanted.settings["width"]) == (1, 8)
        assert type(wanted.settings).__name__ == "Mine"
        assert registry.find("task", "mine").declared["width"].help == "how wide"

    def test_a_name_that_is_not_there_is_told_in_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "mine_settings.py").write_text(SETTINGS)
        file = tmp_path / "mine.py"
        file.write_text(
            TASK.format(module="mine_settings", names="YOURS", settings="YOURS", profiles="{}")
        )
        with pytest.raises(RequestError, match="an argument of @task cannot be imported") as told:
            Registry([file])
        assert "\n" not in str(told.value)

    def test_a_dictionary_is_described_too(self, tmp_path: Path) -> None:
        literal = {**EXAMPLE, "mine": 3}
        file = tmp_path / "mine.py"
        file.write_text(
            TASK.format(
                module="harness.task", names="Task", settings=literal, profiles={"smoke": {}}
            )
        )
        entry = Registry([file]).find("task", "mine")
        assert entry.declared["clip"].help == Recipe.declared()["clip"].help
        assert entry.declared["optimiser"].choices == ("adam", "adamw", "sgd")
        assert entry.declared["mine"] == Setting("mine", 3)
        assert plan(Registry([file]), "mine", "dense", profile="smoke").settings == literal

    def test_a_dictionary_may_be_completed_by_the_profiles(self, tmp_path: Path) -> None:
        literal = {name: value for name, value in EXAMPLE.items() if name in Recipe.declared()}
        clip = literal.pop("clip")
        file = tmp_path / "mine.py"
        profiles = {"smoke": {"clip": clip}, "embedded": {"clip": 1.0, "more": 2}}
        file.write_text(
            TASK.format(module="harness.task", names="Task", settings=literal, profiles=profiles)
        )
        registry = Registry([file])
        smoke, embedded = (plan(registry, "mine", "dense", profile=each) for each in profiles)
        assert smoke.settings == {**literal, "clip": clip}
        assert embedded.settings == {**literal, "clip": 1.0, "more": 2}

    def test_what_a_module_raises_is_told_in_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "mine_settings.py").write_text("raise ValueError('boom')\n")
        file = tmp_path / "mine.py"
        file.write_text(
            TASK.format(module="mine_settings", names="MINE", settings="MINE", profiles="{}")
        )
        with pytest.raises(RequestError, match="cannot be imported: ImportError: boom"):
            Registry([file])
