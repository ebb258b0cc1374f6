"""The engine of the pruning benchmark, and its Python API.

    import harness

    record = harness.run_pairing("digits", "crop_s", sparsity=0.98, seed=0)
    harness.run_matrix(tasks=["digits"], pruners=["dense", "snip"], seeds=range(5), jobs=2)
    frame = harness.read_results("results")
    network = harness.load("results/RUN")
    advice = harness.advise("digits", budget="latency=0.5")
    harness.export_network("RUN", "onnx", "exported")

Mistakes in a request raise `harness.errors.RequestError` with the sentence that the command line
prints. The engine carries out pruning methods on tasks, and knows neither by name.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.api import run_matrix, run_pairing, track_runs, write_report
    from harness.commands.advise import advise
    from harness.commands.compare import compare_results
    from harness.commands.sensitivity import measure_sensitivity
    from harness.export.export import export_network
    from harness.network import load
    from harness.own_task import task_from
    from harness.results.frame import read_results

    __version__: str

__all__ = [
    "__version__",
    "advise",
    "compare_results",
    "export_network",
    "load",
    "measure_sensitivity",
    "read_results",
    "run_matrix",
    "run_pairing",
    "task_from",
    "track_runs",
    "write_report",
]

_MODULES = {
    "advise": "harness.commands.advise",
    "compare_results": "harness.commands.compare",
    "export_network": "harness.export.export",
    "load": "harness.network",
    "measure_sensitivity": "harness.commands.sensitivity",
    "read_results": "harness.results.frame",
    "run_matrix": "harness.api",
    "run_pairing": "harness.api",
    "task_from": "harness.own_task",
    "track_runs": "harness.api",
    "write_report": "harness.api",
}
"""The module of each function, imported on demand: the command line answers before torch loads."""


if not TYPE_CHECKING:  # a type checker would accept any name

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return getattr(importlib.import_module(_MODULES[name]), name)
        if name == "__version__":
            return importlib.import_module("harness.results.provenance").version()
        raise AttributeError(f"module 'harness' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
