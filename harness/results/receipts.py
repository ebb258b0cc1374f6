"""The receipts of prunings in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.record import Receipt
from harness.text import count

_FEW = 5
"""Names in a line."""


def receipt_lines(receipt: Receipt) -> Iterator[str]:
    """Yield what a receipt says, in lines for a reader."""
    before, after = receipt["weights"]
    saved = f"{count(before - after)} of {count(before)} weights"
    if receipt["macs"] is not None:
        before, after = receipt["macs"]
        saved += f" and {count(before - after)} of {count(before)} multiply-accumulates"
    yield f"removed {saved}"
    reasons = {**receipt.get("whole", {}), **receipt.get("pinned", {})}
    if reasons:
        whole = [f"{_several(names)} ({reason})" for reason, names in reasons.items()]
        yield f"left whole: {'; '.join(whole)}"
    if receipt.get("bottlenecks"):
        narrow = [
            f"{name} ({left} of {dense})" for name, (left, dense) in receipt["bottlenecks"].items()
        ]
        yield f"bottlenecks: {_several(narrow)}"


def _several(names: Sequence[str]) -> str:
    rest = len(names) - _FEW
    return ", ".join(names[:_FEW]) + (f" and {rest} more" if rest > 0 else "")
