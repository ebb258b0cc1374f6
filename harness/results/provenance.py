"""Where and with what a run was carried out: nothing that names a person, a host or a folder."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.spec import Spec, as_text

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "gymnasium", "codecarbon")


def describe_device(device: torch.device) -> str:
    """Return the name of a GPU, or of the processor."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return _processor()


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def environment(device: torch.device) -> dict[str, Any]:
    """Return what may change the last bits of a result, and every cost."""
    import torch

    return {
        "device": describe_device(device),
        "device_kind": device.type,
        "threads": torch.get_num_threads(),
        "denormals_flushed": True,
        "deterministic": {
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
        },
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in PACKAGES},
            "cuda": torch.version.cuda if device.type == "cuda" else None,
        },
        "system": f"{platform.system()} {platform.machine()}",
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> dict[str, Any]:
    """Return the project's commit and whether files differ from it; None outside a checkout."""
    project = Path(__file__).resolve().parents[2]
    if not (project / ".git").exists():
        return {"commit": None, "dirty": None, "reason": "not run from a checkout"}
    try:
        head = _git(project, "rev-parse", "HEAD")
        changes = _git(project, "status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None, "reason": "git did not answer"}
    return {"commit": head, "dirty": bool(changes)}


def _git(project: Path, *arguments: str) -> str:
    answer = subprocess.run(
        ["git", "-C", str(project), *arguments], capture_output=True, text=True, check=True
    )
    return answer.stdout.strip()


def command(spec: Spec) -> str:
    """Return the command that asks for a spec."""
    words = ["python", "-m", "harness", "run", "--task", spec.task, "--pruner", spec.pruner]
    words += ["--sparsity", f"{spec.sparsity:g}", "--seed", str(spec.seed)]
    words += ["--profile", spec.profile]
    for name, value in spec.overrides.items():
        words += ["--set", f"{name}={as_text(value)}"]
    for plugin in spec.plugins:
        words += ["--plugin", plugin]
    return shlex.join(words)
