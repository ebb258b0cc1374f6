"""Reading ahead keeps items and order."""

from __future__ import annotations

import itertools
import threading
import time

import pytest
import torch
from torch import Tensor

from harness.data.loading import AHEAD, ahead, loaded
from harness.errors import RequestError

CPU = torch.device("cpu")


def test_the_results_come_in_the_order_of_the_items() -> None:
    def slower_at_first(number: int) -> int:
        time.sleep(0.02 / (number + 1))
        return number**2

    assert list(ahead(slower_at_first, range(10))) == [number**2 for number in range(10)]
    assert list(ahead(slower_at_first, range(2))) == [0, 1], "fewer than are read ahead"
    assert list(ahead(slower_at_first, [])) == []


def test_threads_read_a_limited_number_of_items_ahead() -> None:
    begun = [threading.Event() for _ in range(20)]

    def begin(number: int) -> int:
        begun[number].set()
        return number

    results = ahead(begin, itertools.count())
    assert next(results) == 0
    for event in begun[: AHEAD + 1]:
        assert event.wait(5)
    assert not any(event.is_set() for event in begun[AHEAD + 1 :])
    results.close()  # type: ignore[attr-defined]


def test_an_exception_is_raised_at_its_item() -> None:
    def fail_at_two(number: int) -> int:
        if number == 2:
            raise RequestError("a file is damaged")
        return number

    results = ahead(fail_at_two, range(9))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(RequestError, match="a file is damaged"):
        next(results)


def test_a_cpu_reads_nothing_ahead() -> None:
    read_so_far = []

    def read(number: int) -> tuple[Tensor]:
        read_so_far.append(number)
        return (torch.tensor(number),)

    results = loaded(read, itertools.count(), CPU)
    number, (tensor,) = next(results)
    assert (number, int(tensor)) == (0, 0)
    assert read_so_far == [0]


def test_a_gpu_gets_pinned_tensors_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checked without a GPU, by the calls that it would get."""
    asked: list[object] = []

    def pin_memory(tensor: Tensor) -> Tensor:
        asked.append("pinned")
        return tensor

    def to(tensor: Tensor, device: torch.device, non_blocking: bool) -> Tensor:
        asked.append((str(device), non_blocking))
        return tensor

    monkeypatch.setattr(Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(Tensor, "to", to)
    cuda = torch.device("cuda", 1)
    found = list(loaded(lambda number: (torch.tensor(number),), range(3), cuda))
    assert [(number, int(tensor)) for number, (tensor,) in found] == [(0, 0), (1, 1), (2, 2)]
    assert asked.count("pinned") == asked.count(("cuda:1", True)) == 3
