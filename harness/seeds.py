"""One seed per run, and an independent stream of random numbers for each purpose."""

from __future__ import annotations

import hashlib


def derive(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed that depends only on ``seed`` and ``purpose``.

    No purpose names the pruner, so every pruner gets the same initial weights,
    data order, augmentation, dropout and scoring batches.
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1
