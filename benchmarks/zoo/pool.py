"""Trials in processes of their own, so that a bad network costs its own row only."""

from __future__ import annotations

import multiprocessing
import os
import resource
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.zoo.trial import Result

Trial = Callable[[str, str], Result]
"""Takes a family and the name of a network in it."""


def results(
    trial: Trial,
    names: Sequence[tuple[str, str]],
    *,
    jobs: int = 1,
    seconds: float = 300.0,
    gigabytes: float = 8.0,
    preload: Sequence[str] = (),
) -> Iterator[tuple[str, str, Result]]:
    """Iterate over networks and what came of each, in their order.

    Args:
        trial: a function of a module: processes import it.
        names: family and name of each network.
        jobs: trials at once.
        seconds: for one trial; then it is ended.
        gigabytes: of memory for one trial, by the size of its address space.
        preload: modules that the processes share.
    """
    # A fork of a server that has imported everything starts at once, and has no threads.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))

    def one(named: tuple[str, str]) -> Result:
        answers, answer = context.Pipe(duplex=False)
        arguments = (answer, trial, named, int(gigabytes * 1e9))
        process = context.Process(target=_answer, args=arguments, daemon=True)
        process.start()
        answer.close()
        try:
            answers.recv()  # its imports are done, of which no trial is to pay for the first
            if not answers.poll(seconds):
                return Result("out of time", f"more than {seconds:g} s")
            result: Result = answers.recv()
            return result
        except EOFError:
            process.join()
            return Result("out of memory", f"its process ended with code {process.exitcode}")
        finally:
            process.kill()
            process.join()

    with ThreadPoolExecutor(jobs) as threads:
        for (family, name), result in zip(names, threads.map(one, names), strict=True):
            yield family, name, result


def _answer(answer: Connection, trial: Trial, named: tuple[str, str], most: int) -> None:
    """Carry out a trial; what libraries print is of no interest."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nothing, stream)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    answer.send(None)
    result: Any
    try:
        result = trial(*named)
    except MemoryError:
        result = Result("out of memory", f"more than {most / 1e9:g} GB")
    answer.send(result)
