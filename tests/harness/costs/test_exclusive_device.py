"""Having a device alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from harness.costs import exclusive_device
from harness.costs.exclusive_device import device_lock, wait_until_idle
from harness.errors import Interrupted
from harness.signals import Stop

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def lock_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What looking at the device will find, one number a second."""
    found: list[float] = []
    clock = iter(range(1000))

    def look(device: torch.device) -> float:
        next(clock)
        return found.pop(0)

    monkeypatch.setattr(exclusive_device, "load_by_others", look)
    seconds: Iterator[int] = iter(range(1000))
    monkeypatch.setattr("time.monotonic", lambda: float(next(seconds)))
    return found


def test_two_processes_never_measure_on_one_device_at_once() -> None:
    lines: list[str] = []
    inside = threading.Event()
    done = threading.Event()

    def other() -> None:
        with device_lock(CPU, lines.append, Stop()):
            assert done.is_set()

    with device_lock(CPU, lines.append, Stop()):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
        inside.set()
        done.set()
    thread.join(5)
    assert not thread.is_alive()
    assert lines == ["waiting: another process is measuring on cpu"]


def test_devices_have_locks_of_their_own() -> None:
    with (
        device_lock(CPU, print, Stop()),
        device_lock(torch.device("cuda:0"), print, Stop()),
        device_lock(torch.device("cuda:1"), print, Stop()),
    ):
        pass


def test_waiting_for_the_lock_ends_when_the_process_is_asked_to_stop() -> None:
    with (
        device_lock(CPU, print, Stop()),
        pytest.raises(Interrupted),
        device_lock(CPU, lambda line: None, Stop(requested=True)),
    ):
        pass


def test_an_idle_device_is_measured_at_once(loads: list[float]) -> None:
    loads += [0.05]
    lines: list[str] = []
    assert wait_until_idle(CPU, 60, lines.append, Stop()) == 0.05
    assert lines == []


def test_a_busy_device_is_waited_for(loads: list[float]) -> None:
    loads += [1.0, 1.0, 0.1]
    lines: list[str] = []
    assert wait_until_idle(CPU, 60, lines.append, Stop()) == 0.1
    assert lines == ["waiting up to 60 s: other programs keep 1 processor busy"]


def test_a_gpu_is_busy_for_a_share_of_the_time(loads: list[float]) -> None:
    loads += [0.45, 0.1]
    lines: list[str] = []
    wait_until_idle(torch.device("cuda:0"), 60, lines.append, Stop())
    assert lines == ["waiting up to 60 s: other programs use cuda:0 for 45 % of the time"]


def test_patience_ends(loads: list[float]) -> None:
    loads += [1.0] * 9
    lines: list[str] = []
    assert wait_until_idle(CPU, 2, lines.append, Stop()) == 1.0
    assert (
        lines[-1]
        == "other programs keep 1 processor busy: this measurement will be marked as disturbed"
    )


def test_waiting_for_a_busy_device_ends_when_the_process_is_asked_to_stop(
    loads: list[float],
) -> None:
    loads += [1.0]
    with pytest.raises(Interrupted):
        wait_until_idle(CPU, 60, lambda line: None, Stop(requested=True))
