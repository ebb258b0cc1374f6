"""Settings with types: what can be set with ``--set NAME=VALUE``, and what it means.

Settings are the fields of a frozen dataclass. Each has a type, a sentence for its users and,
where that is not enough, the values it permits::

    @dataclass(frozen=True, kw_only=True)
    class MySettings(Recipe):
        width: Annotated[int, "channels of the first stage"] = 64
        dropout: Annotated[float, "share of features dropped", Interval("[0, 1)")] = 0.0
        model: Annotated[Literal["small", "large"], "network"] = "small"

Listing tasks imports this module, so it does not import torch.
"""

from __future__ import annotations

import functools
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

from harness.errors import RequestError, nearest

_SPELLINGS: Final = {"true": True, "false": False, "on": True, "off": False}
"""How ``--set`` spells a switch; ``on`` and ``off`` are accepted for the sake of old scripts."""


class _OnOff:
    """The type of `ON_OFF`."""


ON_OFF: Final = _OnOff()
"""Marks a switch that run identities spell ``on`` and ``off``.

The identities of existing runs were made with these words. New switches do not need the mark.
"""


class Interval:
    """The numbers that a setting permits.

    Args:
        text: as in ``(0, 1]``, which is more than 0 and at most 1.

    Raises:
        ValueError: the text is not an interval.
    """

    _PATTERN = re.compile(r"([\[(])\s*([-+.\w]+)\s*,\s*([-+.\w]+)\s*([\])])")

    def __init__(self, text: str) -> None:
        match = self._PATTERN.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not an interval")
        opening, low, high, closing = match.groups()
        self._text = text
        self._low, self._high = float(low), float(high)
        self._includes_low, self._includes_high = opening == "[", closing == "]"

    def __contains__(self, value: float) -> bool:
        above = value >= self._low if self._includes_low else value > self._low
        below = value <= self._high if self._includes_high else value < self._high
        return above and below

    def __str__(self) -> str:
        return self._text


class Reference(ABC):
    """Marks a text that may name something outside this project: code, a file, a library's network.

    What it names is part of a run's identity.
    """

    forms: str
    """The texts that name something, in words."""

    @abstractmethod
    def accepts(self, value: str) -> bool:
        """Return whether a text has the form of a name."""

    @abstractmethod
    def fingerprint(self, name: str, value: str, data_folder: Path) -> str | None:
        """Return a hash of what is named; None if nothing is, or if its name says it all.

        Args:
            name: of the setting, for messages.
            value: of the setting.
            data_folder: where files are looked up besides the current folder.

        Raises:
            RequestError: there is no such thing, or it cannot be read.
        """


@dataclass(frozen=True)
class Setting:
    """One thing that can be set: a field of `Settings`, or an option of a pruner."""

    name: str
    default: Any
    """A number, a text or a truth value; its type is that of the setting."""
    help: str = ""
    choices: tuple[str, ...] = ()
    """The permitted values of a text; empty if any text is permitted."""
    interval: Interval | None = None
    """The permitted numbers; None for those that `permitted` derives from the default."""
    is_hashed_as_on_off: bool = False
    """Whether the switch has the mark `ON_OFF`."""
    reference: Reference | None = None
    """What a text may name besides its choices."""

    @property
    def permitted(self) -> str:
        """The permitted values in words."""
        if self.choices:
            further = () if self.reference is None else (self.reference.forms,)
            return ", ".join((*self.choices, *further))
        if isinstance(self.default, bool):
            return "true, false"
        if isinstance(self.default, str):
            return "any text"
        kind = "whole number" if isinstance(self.default, int) else "number"
        if self.interval is not None:
            return f"{kind} in {self.interval}"
        if isinstance(self.default, int) and self.default >= 1:
            return f"{kind}, at least 1"
        return f"{kind}, at least 0" if self.default >= 0 else kind

    def parse(self, text: str) -> Any:
        """Return a text as a value of the default's type.

        Without an interval, a whole number that is positive by default must be positive, and a
        number that is not negative by default must not be negative.

        Raises:
            RequestError: the text is not such a value, or the value is not permitted.
        """
        given = f"{self.name}={text}"
        if isinstance(self.default, bool):
            if text not in _SPELLINGS:
                raise RequestError(f"{given} is neither true nor false")
            return _SPELLINGS[text]
        if self.choices and text not in self.choices and not self._names_something(text):
            raise RequestError(f"{given}: unknown value{nearest(text, self.choices)}")
        try:
            value = type(self.default)(text)
        except ValueError:
            kind = {int: "a whole number", float: "a number"}[type(self.default)]
            raise RequestError(f"{given} is not {kind}, as in {self.name}={self.default}") from None
        if not isinstance(value, int | float):
            return value
        if not math.isfinite(value):
            raise RequestError(f"{given} is not a finite number")
        if self.interval is not None:
            if value not in self.interval:
                raise RequestError(f"{given} is outside {self.interval}")
        elif isinstance(value, int) and value < 1 <= self.default:
            raise RequestError(f"{given} is less than 1")
        elif value < 0 <= self.default:
            raise RequestError(f"{given} is negative")
        return value

    def _names_something(self, text: str) -> bool:
        return self.reference is not None and self.reference.accepts(text)

    def as_hashed(self, value: Any) -> Any:
        """Return a value as run identities spell it."""
        return ("on" if value else "off") if self.is_hashed_as_on_off else value


@dataclass(frozen=True, kw_only=True)
class Settings(Mapping[str, Any]):
    """Values with names and types, read as attributes or, like a mapping, by name.

    Subclasses are dataclasses: ``@dataclass(frozen=True, kw_only=True)``.
    """

    def __getitem__(self, name: str) -> Any:
        if name not in self.__dataclass_fields__:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dataclass_fields__)

    def __len__(self) -> int:
        return len(self.__dataclass_fields__)

    @classmethod
    def declared(cls) -> dict[str, Setting]:
        """Return the description of each setting; a setting without a default has None."""
        return dict(_declared(cls))

    def described(self) -> dict[str, Setting]:
        """Return the description of each setting, with these values as defaults."""
        return {
            name: replace(setting, default=self[name])
            for name, setting in _declared(type(self)).items()
        }


@functools.cache
def _declared(cls: type[Settings]) -> Mapping[str, Setting]:
    hints = get_type_hints(cls, include_extras=True)
    return {
        field.name: _setting(
            field.name, hints[field.name], None if field.default is MISSING else field.default
        )
        for field in fields(cls)
    }


def _setting(name: str, hint: Any, default: Any) -> Setting:
    kind, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    return Setting(
        name,
        default,
        help=next((note for note in notes if isinstance(note, str)), ""),
        choices=get_args(kind) if get_origin(kind) is Literal else (),
        interval=next((note for note in notes if isinstance(note, Interval)), None),
        is_hashed_as_on_off=ON_OFF in notes,
        reference=next((note for note in notes if isinstance(note, Reference)), None),
    )


@dataclass(frozen=True, kw_only=True)
class Recipe(Settings):
    """How a network is trained: the settings that every task has."""

    epochs: Annotated[int, "training budget in epochs, the same for every method"]
    batch_size: Annotated[int, "samples in a training batch"]
    optimiser: Annotated[
        Literal["adam", "adamw", "sgd"],
        "optimizer; sgd has a momentum of 0.9",
    ]
    learning_rate: Annotated[float, "largest learning rate of the schedule"]
    weight_decay: Annotated[float, "weight decay of the optimizer"]
    clip: Annotated[float, "norm to which larger gradients are scaled down; 0 for no clipping"]

    @staticmethod
    def of(settings: Mapping[str, Any]) -> Recipe:
        """Return the recipe that is a part of a task's settings."""
        if isinstance(settings, Recipe):
            return settings
        return Recipe(**{name: settings[name] for name in Recipe.declared()})


@dataclass(frozen=True, kw_only=True)
class PublishedDataSettings(Recipe):
    """What tasks with published data have."""

    accept: Annotated[
        Literal["official", "unofficial"],
        "published data: only as their publisher packed them, or complete data in other files too, "
        "whose results are stamped UNOFFICIAL",
    ] = "official"


def literal_settings(
    values: Mapping[str, Any],
    helps: Mapping[str, str],
    choices: Mapping[str, Any],
    limits: Mapping[str, str],
) -> dict[str, Setting]:
    """Return the descriptions of settings or options that are written as plain values.

    Args:
        values: the defaults by name.
        helps: the meaning of some of them.
        choices: the permitted values of some of them.
        limits: the intervals of some of them.
    """
    return {
        name: Setting(
            name,
            default,
            helps.get(name, ""),
            tuple(choices.get(name, ())),
            Interval(limits[name]) if name in limits else None,
        )
        for name, default in values.items()
    }


def as_text(value: Any) -> str:
    """Return a value as ``--set`` takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
