"""Finding the function that describes a task's data."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import RequestError
from harness.registry import Registry
from harness.spec import describe_data
from tests.helpers.workbench import POINTS


def described(registry: Registry, name: str, **settings: str) -> tuple[str, str]:
    description = describe_data(registry.find("task", name), "smoke", settings, Path())
    return description.source, description.name


def test_a_module_and_a_function_are_named() -> None:
    source, name = described(Registry(), "digits")
    assert source == "real"
    assert name.startswith("scikit-learn digits")


def test_without_a_module_the_function_is_in_the_plug_in_itself() -> None:
    assert described(Registry([POINTS]), "points", source="official") == (
        "official",
        "random points",
    )


def test_a_missing_function_is_reported_in_one_line(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(POINTS.read_text().replace('data=":describe"', 'data=":discribe"'))
    with pytest.raises(RequestError, match=r"^task 'points': mine\.py has no 'discribe'$"):
        described(Registry([plugin]), "points")


def test_an_installed_definition_finds_what_is_beside_it() -> None:
    digits = Registry().find("task", "digits")
    assert digits.beside("Digits") is digits.load()


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    missing = tmp_path / "missing"
    broken = f"    open({str(missing)!r})\n    return "
    plugin.write_text(
        POINTS.read_text().replace("    return DataDescription", f"{broken}DataDescription")
    )
    complaint = rf"^the data of points cannot be read: {missing}: No such file or directory$"
    with pytest.raises(RequestError, match=complaint):
        described(Registry([plugin]), "points", source="official")
