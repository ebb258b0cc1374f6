"""The receipts of prunings in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.record import Receipt, SparseKernels
from harness.text import count, number, several

SLOWER, NO_FASTER = "slower than dense", "hardly faster than dense"
"""How sparse kernels that are not used compare with dense ones."""

_FEW = 5
"""Names in a line."""


def receipt_lines(receipt: Receipt, kernels: SparseKernels | None = None) -> Iterator[str]:
    """Yield what a receipt says, in lines for a reader.

    Args:
        receipt: the receipt of a pruning.
        kernels: what is executed with sparse kernels since then, if the run asked for that.
    """
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
    if kernels is not None:
        yield f"sparse kernels: {_execution(kernels)}"


def _execution(kernels: SparseKernels) -> str:
    """Return what is executed with sparse kernels, and how that compares with dense ones."""
    if kernels["step"] is None:
        return "none, since no weights are masked"
    layers, reasons = kernels["layers"], kernels["dense"]
    masked = len(layers) + sum(map(len, reasons.values()))
    parts = [f"{len(layers)} of {several(masked, 'masked layer')}"]
    if layers:
        parts[0] += f" ({_several(layers)})"
    if (passes := kernels["passes"]) is not None:
        slower = "" if layers else f", if sparse: {SLOWER if passes > 1 else NO_FASTER}"
        parts.append(f"{number(passes)} of the dense time of both passes{slower}")
    where = "surviving" if kernels["steps"] else "all"
    parts.append(
        f"optimizer steps on {where} weights (on survivors: {number(kernels['step'])} of dense)"
    )
    if not layers and reasons:
        parts.append(_several([f"{_several(names)}: {why}" for why, names in reasons.items()]))
    return "; ".join(parts)


def _several(names: Sequence[str]) -> str:
    rest = len(names) - _FEW
    return ", ".join(names[:_FEW]) + (f" and {rest} more" if rest > 0 else "")
