"""What a finished network may cost: a budget, as in ``macs=0.25`` or ``bytes=2MB``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from harness.errors import RequestError, nearest

COUNT = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
BYTES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True)
class Kind:
    """What a budget can limit.

    Attributes:
        title: in words.
        units: the units in which it is given, each with its size.
        unit: the unit that is meant if none is given; None if one has to be given.
        written: the units in which it is written, from the smallest to the largest.
    """

    title: str
    units: Mapping[str, float]
    unit: str | None
    written: tuple[str, ...]


KINDS: Mapping[str, Kind] = {
    "macs": Kind(
        "multiply-accumulates of one sample's inference", COUNT, "", ("", "k", "M", "G", "T")
    ),
    "params": Kind("parameters that remain", COUNT, "", ("", "k", "M", "G", "T")),
    "bytes": Kind("size of the network's file", BYTES, "B", ("B", "kB", "MB", "GB")),
    "latency": Kind("time of the inference of a batch", SECONDS, None, ("us", "ms", "s")),
}
"""The kinds of budgets by name."""

EXAMPLES = "as in macs=0.25, params=10k, bytes=2MB or latency=5ms"

_AMOUNT = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([^\W\d_]*)")


@dataclass(frozen=True)
class Budget:
    """The most that a finished network may cost.

    Attributes:
        kind: a name in `KINDS`.
        amount: a fraction of the dense network's cost; or operations, parameters, bytes, seconds.
        is_fraction: whether ``amount`` is a fraction.
    """

    kind: str
    amount: float
    is_fraction: bool

    @staticmethod
    def parse(text: str) -> Budget:
        """Read a budget.

        An amount without a unit is a fraction of the dense network's if it is below 1.

        Raises:
            RequestError: the kind or the unit is unknown, or the amount is not positive.
        """
        name, equals, amount = (part.strip() for part in text.partition("="))
        if "," in text:
            raise RequestError(f"budget {text} is more than one; a network has one budget")
        if not equals:
            raise RequestError(f"budget {text!r} is not of the form KIND=AMOUNT, {EXAMPLES}")
        if name not in KINDS:
            raise RequestError(f"budget {text}: unknown kind {name!r}{nearest(name, KINDS)}")
        kind = KINDS[name]
        match = _AMOUNT.fullmatch(amount)
        if match is None:
            raise RequestError(f"budget {text}: {amount!r} is not an amount, {EXAMPLES}")
        number, unit = float(match[1]), match[2].replace("µ", "u").replace("μ", "u")
        if not (math.isfinite(number) and number > 0):
            raise RequestError(f"budget {text} is not more than 0, {EXAMPLES}")
        if not unit and number < 1:
            return Budget(name, number, True)
        if not unit and number == 1:
            raise RequestError(
                f"budget {text} is the dense network; a fraction of it is below 1, as in {name}=0.5"
            )
        if not unit and kind.unit is None:
            raise RequestError(
                f"budget {text} has no unit; write {name}={match[1]}{kind.written[-2]}, or a "
                f"fraction of the dense network's, as in {name}=0.5"
            )
        unit = unit or kind.unit or ""
        if unit not in kind.units:
            known = [each for each in kind.units if each]
            same = [each for each in known if each.lower() == unit.lower()]
            hint = f"; did you mean {same[0]!r}?" if same else nearest(unit, known)
            raise RequestError(f"budget {text}: unknown unit {unit!r} of {name}{hint}")
        return Budget(name, number * kind.units[unit], False)

    def __str__(self) -> str:
        """Return the budget as `parse` reads it; equal budgets have equal texts."""
        return f"{self.kind}={self._amount}"

    @property
    def label(self) -> str:
        """The budget in the name of a run, as in ``macs0.25``."""
        return f"{self.kind}{self._amount}"

    @property
    def _amount(self) -> str:
        return f"{self.amount:.12g}" if self.is_fraction else written(self.kind, self.amount)

    def fraction(self, dense: float) -> float:
        """Return the budget as a fraction of the dense network's cost."""
        return self.amount if self.is_fraction else self.amount / dense


def written(kind: str, amount: float, digits: int = 12) -> str:
    """Return an amount with a unit, as in ``2.5MB``."""
    units, names = KINDS[kind].units, KINDS[kind].written
    fitting = [unit for unit in names if units[unit] <= amount * (1 + 1e-12)]
    unit = fitting[-1] if fitting else names[0]
    return f"{amount / units[unit]:.{digits}g}{unit}"
