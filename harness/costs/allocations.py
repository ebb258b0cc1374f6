"""Peak memory by the word of torch's own allocator, on the CPU.

The resident memory of a process is rough: pages are kept for later, and code that is used for
the first time is loaded into it. Torch's profiler reports each tensor that is allocated and
freed, those within operations included, so the sum at any moment is exact, and the same each
time. What the libraries below torch take for themselves for a moment is not in it.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from harness.costs.measured import Measured

_MARK = "harness: memory counts here"
_ALLOCATION = "[memory]"


class Allocations:
    """Follows all allocations in its context, and has the peak of the parts that count.

    ::

        with Allocations() as allocations:
            network = build()
            with allocations.counting():
                step(network)
        allocations.peak()
    """

    def __init__(self) -> None:
        # The profiler's library is talkative otherwise; it reads this when it is first used.
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")
        self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)

    def __enter__(self) -> Allocations:
        gc.collect()  # so that nothing is freed meanwhile whose allocation was not seen
        self._profile.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._profile.__exit__(*raised)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Let the peak be among those of this context."""
        with record_function(_MARK):
            yield

    def peak(self) -> Measured:
        """Return the most bytes that were allocated at once, since the beginning, where it counts.

        None with a reason where this version of torch does not say.
        """
        try:
            profiler: Any = self._profile.profiler
            events = profiler.kineto_results.events()
            marks = [event for event in events if event.name() == _MARK]
            changes = sorted(
                (event.start_ns(), event.nbytes())
                for event in events
                if event.name() == _ALLOCATION and event.device_type().name == "CPU"
            )
            stretches = [(mark.start_ns(), mark.start_ns() + mark.duration_ns()) for mark in marks]
        except AttributeError as error:
            return Measured(None, f"torch {torch.__version__} does not tell allocations: {error}")
        times = [when for when, _ in changes]
        in_use = list(accumulate(size for _, size in changes))
        counted = [
            size
            for when, size in zip(times, in_use, strict=True)
            if any(begin <= when <= end for begin, end in stretches)
        ]
        if not counted:
            return Measured(None, f"torch {torch.__version__} has told no allocations")
        return Measured(max(counted))
