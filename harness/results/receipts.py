"""The receipts of prunings in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.record import SLOWER_THAN_DENSE, Receipt, SparseKernels
from harness.text import count, number, several

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
    if receipt.get("kinds"):
        left = [f"{left} of {dense} {kind}" for kind, (left, dense) in receipt["kinds"].items()]
        yield f"left: {_several(left)}"


def sparse_kernels_line(kernels: SparseKernels) -> str:
    """Return what is executed with sparse kernels, and how they compare with dense ones."""
    layers, passes, step = kernels["layers"], kernels["passes"], kernels["step"]
    if step is None:
        return "none, since no weights are masked"
    masked = len(layers) + sum(map(len, kernels["dense"].values()))
    parts = [f"in {len(layers)} of {several(masked, 'masked layer')}"]
    if layers:
        parts[0] += f" ({_several(layers)})"
    if passes is not None:
        parts.append(f"both passes {_compared(passes, bool(layers))}")
    parts.append(f"optimizer steps {_compared(step, kernels['steps'])}")
    return ", ".join(parts)


def _compared(ratio: float, used: bool) -> str:
    if used:
        return f"take {number(ratio)} of the dense time"
    how = SLOWER_THAN_DENSE if ratio > 1 else "hardly faster than dense"
    return f"stay dense (sparse ones would take {number(ratio)} of the time, {how})"


def _several(names: Sequence[str]) -> str:
    rest = len(names) - _FEW
    return ", ".join(names[:_FEW]) + (f" and {rest} more" if rest > 0 else "")
