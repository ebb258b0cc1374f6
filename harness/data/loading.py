"""Reads the content of batches ahead, while a GPU works on the previous ones."""

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
"""Batches read ahead, each by its own thread: reading, decoding and copying release the GIL."""


def loaded(
    read: Callable[[Item], tuple[Tensor, ...]], items: Iterable[Item], device: torch.device
) -> Iterator[tuple[Item, tuple[Tensor, ...]]]:
    """Yield items, each with its tensors on a device.

    For a GPU, tensors are read ahead into pinned memory. If the device is the CPU, which would be
    too busy to read ahead, each item is read when it is requested.

    Args:
        read: returns the tensors of an item, on the CPU.
        items: may be endless.
        device: of the yielded tensors.
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
    """Yield a function's results in the order of the items, computing the next ones in threads."""
    coming: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(AHEAD) as threads:
        for item in items:
            coming.append(threads.submit(function, item))
            if len(coming) > AHEAD:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
