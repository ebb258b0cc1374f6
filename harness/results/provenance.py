"""Where and with what a run was carried out. No person, host or folder is named."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.spec import Spec, as_text

if TYPE_CHECKING:
    import torch

_PROJECT = Path(__file__).resolve().parents[2]

PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "gymnasium", "codecarbon")


_OPENMP = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_DYNAMIC", "OMP_PROC_BIND", "OMP_WAIT_POLICY")
"""Environment variables that control what threads do while they wait."""


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
    """Return everything that may change the last bits of a result, or a cost.

    ``machine`` is a short hash that is equal for two runs with comparable times: processor or GPU,
    host (see `host`), number of threads, torch and its settings are equal. The number of runs that
    shared the device is not part of it.
    """
    import torch

    described = {
        "device": describe_device(device),
        "device_kind": device.type,
        "host": host(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "denormals_flushed": not bool(torch.full((1,), 1e-40).mul(1).any()),
        "deterministic": {
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "algorithms": torch.are_deterministic_algorithms_enabled(),
        },
        "settings": _settings(device),
        "system": f"{platform.system()} {platform.machine()}",
    }
    return {
        **described,
        "machine": _short_hash(described),
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in PACKAGES},
            "cuda": torch.version.cuda if device.type == "cuda" else None,
        },
    }


def host(machine_id: Path = Path("/etc/machine-id")) -> str | None:
    """Return a pseudonym of this host; None if the system has no identifier for it.

    It is a hash keyed with that identifier, as systemd recommends for applications. It
    distinguishes hosts, but does not reveal the host and cannot be linked to what other programs
    report. Containers of one image may share the identifier and therefore the pseudonym.

    Args:
        machine_id: the file with the identifier.
    """
    try:
        identifier = machine_id.read_bytes().strip()
    except OSError:
        return None
    if not identifier:
        return None
    return hmac.new(identifier, b"pruning-benchmark", hashlib.sha256).hexdigest()[:12]


def _settings(device: torch.device) -> dict[str, Any]:
    """Return the settings that influence the speed of torch."""
    import torch

    settings: dict[str, Any] = {
        "torch": torch.__version__,
        # The compiler, the libraries (MKL, OpenBLAS, oneDNN) and the instructions of the processor.
        "build": _short_hash(torch.__config__.show()),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "onednn": bool(torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled),
        "mkl": torch.backends.mkl.is_available(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "openmp": {name: os.environ[name] for name in _OPENMP if name in os.environ},
    }
    if device.type == "cuda":
        settings |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        # Torch raises if its old and its new interface were both used.
        with contextlib.suppress(RuntimeError):
            settings |= {
                "matmul_tf32": torch.backends.cuda.matmul.allow_tf32,
                "cudnn_tf32": torch.backends.cudnn.allow_tf32,
            }
    return settings


def _short_hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def version() -> str:
    """Return the version of this project, also in a checkout that is not installed."""
    try:
        return importlib.metadata.version("pruning-benchmark")
    except importlib.metadata.PackageNotFoundError:
        try:
            project = tomllib.loads((_PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
        except OSError:
            return "unknown"
        return str(project["project"]["version"])


def commit() -> dict[str, Any]:
    """Return the project's commit and whether files differ from it, or why there is none."""
    if not (_PROJECT / ".git").exists():
        reason = f"version {version()}, not run from a checkout"
        return {"commit": None, "dirty": None, "reason": reason}
    try:
        head = _git("rev-parse", "HEAD")
        changes = _git("status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None, "reason": "git did not answer"}
    return {"commit": head, "dirty": bool(changes)}


def _git(*arguments: str) -> str:
    answer = subprocess.run(
        ["git", "-C", str(_PROJECT), *arguments], capture_output=True, text=True, check=True
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
