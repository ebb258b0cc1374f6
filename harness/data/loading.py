"""What batches are made of, read while an accelerator is still at work on those before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 4
"""Batches that are read while one is used, each by a thread of its own: files, decoders and copies
leave Python free."""


def loaded(
    read: Callable[[Item], tuple[Tensor, ...]], items: Iterable[Item], device: torch.device
) -> Iterator[tuple[Item, tuple[Tensor, ...]]]:
    """Go through items, each with its tensors on a device.

    A GPU gets them from pinned memory, read ahead. The CPU that would read ahead is busy itself
    if it is the device: there they are read when they are asked for.

    Args:
        read: returns tensors on the CPU.
        items: may be endless.
        device: where the tensors are wanted.
    """
    if device.type != "cuda":
        for item in items:
            yield item, tuple(tensor.to(device) for tensor in read(item))
        return

    def pinned(item: Item) -> tuple[Item, tuple[Tensor, ...]]:
        return item, tuple(tensor.pin_memory() for tensor in read(item))

    for item, tensors in ahead(pinned, items):
        yield item, tuple(tensor.to(device, non_blocking=True) for tensor in tensors)


def ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Go through a function's results in the order of the items; threads work on the next ones."""
    coming: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(AHEAD) as threads:
        for item in items:
            coming.append(threads.submit(function, item))
            if len(coming) > AHEAD:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
