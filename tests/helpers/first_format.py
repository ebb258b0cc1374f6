"""The first format of the file of a network, which is still read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor


def write_first_format(path: Path, layout: Mapping[str, Any], stored: Mapping[str, Tensor]) -> None:
    """Write weights in the first format, which does not contain the units.

    Args:
        path: the file.
        layout: which tensors are pruned, and how, and which are tied.
        stored: the tensors of the file, by name.
    """
    text = json.dumps(layout)
    digest = hashlib.sha256(text.encode())
    for name in sorted(stored):
        tensor = stored[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    header = {"format": "pruning-benchmark/1", "layout": text, "sha256": digest.hexdigest()}
    save_file(dict(stored), path, header)
