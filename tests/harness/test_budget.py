from __future__ import annotations

import pytest

from harness.budget import Budget, written
from harness.errors import RequestError


@pytest.mark.parametrize(
    ("text", "kind", "amount", "is_fraction", "same"),
    [
        ("macs=0.25", "macs", 0.25, True, "macs=0.25"),
        ("macs=.25", "macs", 0.25, True, "macs=0.25"),
        ("macs=5e6", "macs", 5e6, False, "macs=5M"),
        ("params=10k", "params", 1e4, False, "params=10k"),
        ("bytes=2MB", "bytes", 2e6, False, "bytes=2MB"),
        ("bytes=2000000", "bytes", 2e6, False, "bytes=2MB"),
        ("bytes=100KiB", "bytes", 102_400, False, "bytes=102.4kB"),
        ("latency=0.5", "latency", 0.5, True, "latency=0.5"),
        ("latency=5ms", "latency", 0.005, False, "latency=5ms"),
        (" latency = 0.005 s ", "latency", 0.005, False, "latency=5ms"),
        ("latency=800µs", "latency", 0.0008, False, "latency=800us"),
    ],
)
def test_a_budget_is_a_fraction_of_dense_or_an_amount_with_a_unit(
    text: str, kind: str, amount: float, is_fraction: bool, same: str
) -> None:
    budget = Budget.parse(text)
    assert (budget.kind, budget.is_fraction) == (kind, is_fraction)
    assert budget.amount == pytest.approx(amount)
    assert str(budget) == same
    assert Budget.parse(same) == budget
    assert budget.label == same.replace("=", "")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("macs", "'macs' is not of the form KIND=AMOUNT, as in macs=0.25"),
        ("mac=0.25", "unknown kind 'mac'; did you mean 'macs'?"),
        ("macs=", "'' is not an amount"),
        ("macs=many", "'many' is not an amount"),
        ("macs=0", "is not more than 0"),
        ("macs=-0.5", "is not more than 0"),
        ("bytes=0MB", "is not more than 0"),
        ("macs=1", "is the dense network; a fraction of it is below 1, as in macs=0.5"),
        ("latency=5", "has no unit; write latency=5ms, or a fraction"),
        ("bytes=2mb", "unknown unit 'mb' of bytes; did you mean 'MB'?"),
        ("bytes=2s", "unknown unit 's' of bytes; known: B, "),
        ("latency=3kB", "unknown unit 'kB' of latency; known: ms, s, us"),
        ("macs=0.5,params=0.5", "is more than one; a network has one budget"),
    ],
)
def test_a_wrong_budget_is_one_line_with_the_nearest_right_name(text: str, complaint: str) -> None:
    with pytest.raises(RequestError) as refusal:
        Budget.parse(text)
    assert complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_amount_is_a_fraction_of_what_the_dense_network_costs() -> None:
    assert Budget.parse("macs=0.25").fraction(1000) == 0.25
    assert Budget.parse("macs=100").fraction(1000) == 0.1


def test_amounts_are_written_with_the_largest_unit_that_fits() -> None:
    assert written("macs", 236_096, 3) == "236k"
    assert written("bytes", 999) == "999B"
    assert written("latency", 0.0123456, 3) == "12.3ms"
    assert written("latency", 1e-9) == "0.001us"
