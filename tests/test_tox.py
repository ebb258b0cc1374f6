"""Every pairing has a tox environment by its name."""

from __future__ import annotations

import configparser
import itertools
import re
from pathlib import Path

import pytest

from harness.command_line import parse
from harness.commands.run import requested
from harness.registry import Kind, Registry

TOX = Path(__file__).resolve().parent.parent / "tox.ini"


@pytest.fixture(scope="module")
def tox() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(TOX, encoding="utf-8")
    return parser


@pytest.fixture(scope="module")
def factors(tox: configparser.ConfigParser) -> list[list[str]]:
    """The two lists in braces, tasks and pruners."""
    (section,) = [name for name in tox if name.startswith("testenv:{")]
    return [factor.split(",") for factor in re.findall(r"{(.*?)}", section)]


def own(kind: Kind) -> set[str]:
    """Return what this project registers, whatever else is installed."""
    entries = Registry().of_kind(kind).values()
    return {e.name for e in entries if (e.module or "").partition(".")[0] in ("tasks", "pruners")}


@pytest.mark.parametrize(("position", "kind"), [(0, "task"), (1, "pruner")])
def test_the_factors_are_what_is_registered(
    factors: list[list[str]], position: int, kind: Kind
) -> None:
    assert len(factors) == 2
    assert sorted(factors[position]) == sorted(own(kind))


def test_the_name_of_an_environment_asks_for_its_run(
    tox: configparser.ConfigParser, factors: list[list[str]]
) -> None:
    (section,) = [name for name in tox if name.startswith("testenv:{")]
    assert "harness run --pairing {env_name} {posargs}" in tox[section]["commands"]
    registry = Registry()
    for task, pruner in itertools.product(*factors):
        wanted = requested(parse(["run", "--pairing", f"{task}-{pruner}"]), registry)
        assert (wanted.spec.task, wanted.spec.pruner) == (task, pruner)


def test_no_pairing_hides_another_environment(
    tox: configparser.ConfigParser, factors: list[list[str]]
) -> None:
    pairings = {f"{task}-{pruner}" for task, pruner in itertools.product(*factors)}
    assert not pairings & {name.partition(":")[2] for name in tox}
