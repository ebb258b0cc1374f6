"""Signals ask a process to stop; closing the terminal is as gentle as SIGTERM."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import pytest

from harness.signals import SIGNALS, Ended, Stop, StopRequest, ending_at_once, raised_by_code


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@contextmanager
def handled_by(
    handler: Callable[[int, FrameType | None], object] | signal.Handlers, number: signal.Signals
) -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", SIGNALS)
def test_each_signal_asks_to_stop(number: int) -> None:
    stop = Stop()
    with stop.listening():
        send(number)
        assert stop()


def test_a_second_signal_ends_the_process_at_once() -> None:
    stop = Stop()
    with stop.listening():
        send(signal.SIGTERM)
        with pytest.raises(Ended):
            send(signal.SIGINT)


def test_a_closed_terminal_may_send_its_signal_twice() -> None:
    """The kernel sends it, and then the shell."""
    stop, urgency = Stop(), StopRequest()
    with stop.listening():
        send(signal.SIGHUP)
        send(signal.SIGHUP)
    with urgency.listening():
        send(signal.SIGHUP)
        send(signal.SIGHUP)
    assert (stop.requested, urgency.level) == (True, 2)


def test_a_signal_that_nohup_ignores_stays_ignored() -> None:
    stop = Stop()
    with handled_by(signal.SIG_IGN, signal.SIGHUP):
        with stop.listening():
            send(signal.SIGHUP)
        assert not stop.requested


def test_the_handlers_are_restored() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with ending_at_once(), Stop().listening():
        pass
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_thread_may_listen_although_it_gets_no_signals() -> None:
    entered = []

    def work() -> None:
        with Stop().listening():
            entered.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert entered == [True]


def test_an_interruption_by_code_is_distinguished_from_the_keyboard() -> None:
    # A shell that starts the tests in the background may have them ignore Ctrl-C.
    with handled_by(signal.default_int_handler, signal.SIGINT):
        assert not raised_by_code(KeyboardInterrupt())  # without a handler, it may be Ctrl-C
        with ending_at_once():
            assert raised_by_code(KeyboardInterrupt())
            assert not raised_by_code(Ended())
