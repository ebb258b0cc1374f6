"""A network's weights in a file that leaves out what was removed.

The file is in the safetensors format. A pruned weight ``NAME`` is stored as two tensors: the
kept values ``NAME:values``, in the order of the weight's elements, and their places
``NAME:places``, as bytes, in the shortest of these encodings:

* ``bitmask``: one bit for each element, the first in the highest bit of a byte;
* ``gaps8``, ``gaps16``: the number of removed elements before each kept one, in one or two
  bytes, as in Deep Compression (Han et al., arXiv:1510.00149). The highest code stands for that
  many removed elements and no kept one (their paper stores a zero there).

A weight for which this would save nothing is stored as it is. The header's ``layout`` names the
encodings, the shapes and the tied weights, and ``sha256`` guards the whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from harness.durability import files
from harness.errors import RequestError

_FORMAT = "pruning-benchmark/1"
_GAPS: Mapping[str, np.dtype[Any]] = {"gaps8": np.dtype("<u1"), "gaps16": np.dtype("<u2")}

Kept = NDArray[np.bool_]
Bytes = NDArray[np.uint8]


def save_weights(path: Path, state: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> int:
    """Write a model's state and return the size of the file in bytes.

    Names that share their memory are stored once. A kept weight that happens to be 0 is stored
    like any other.

    Args:
        path: the file, which appears whole or not at all.
        state: tensors by name, as ``state_dict`` returns them; removed weights are 0.
        masks: for pruned weights what is kept, boolean, by name.

    Raises:
        RunFailed: the file cannot be written.
        ValueError: a weight that was removed is not 0.
    """
    first_names = _first_names(state)
    kept = {first_names[name]: mask for name, mask in masks.items()}
    stored: dict[str, Tensor] = {}
    encoded: dict[str, Any] = {}
    for name in dict.fromkeys(first_names.values()):
        tensor = state[name].detach().cpu().contiguous()
        pruned = _without_removed(name, tensor, kept[name].cpu()) if name in kept else None
        if pruned is None:
            stored[name] = tensor.clone()
        else:
            stored[f"{name}:values"] = pruned.values
            stored[f"{name}:places"] = torch.from_numpy(pruned.places)
            encoded[name] = {"shape": list(tensor.shape), "encoding": pruned.encoding}
    tied = {name: first for name, first in first_names.items() if name != first}
    layout = json.dumps({"pruned": encoded, "tied": tied})
    header = {"format": _FORMAT, "layout": layout, "sha256": _digest(layout, stored)}
    content = save(stored, header)
    files.write(path, content)
    return len(content)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read what `save_weights` wrote: the same names, bits, types and shapes, on the CPU.

    Tied names get the same tensor; removed weights are +0.

    Raises:
        RequestError: there is no such file, it is damaged, or it is something else.
    """
    header, stored = _read(path)
    if header.get("format") != _FORMAT:
        raise RequestError(f"{path}: holds no weights in the format {_FORMAT}")
    if header.get("sha256") != _digest(header.get("layout", ""), stored):
        raise RequestError(f"{path}: is damaged: its contents do not match its checksum")
    layout = json.loads(header["layout"])
    for name, pruned in layout["pruned"].items():
        values, places = stored.pop(f"{name}:values"), stored.pop(f"{name}:places").numpy()
        shape = torch.Size(pruned["shape"])
        weight = torch.zeros(shape, dtype=values.dtype)
        kept = _decode(pruned["encoding"], places, shape.numel())
        weight[torch.from_numpy(kept).reshape(shape)] = values
        stored[name] = weight
    return stored | {name: stored[first] for name, first in layout["tied"].items()}


@dataclass(frozen=True)
class _Pruned:
    values: Tensor
    encoding: str
    places: Bytes


def _without_removed(name: str, tensor: Tensor, mask: Tensor) -> _Pruned | None:
    """Return the kept values and their places; None if that is no shorter than the tensor."""
    if tensor[~mask].any():
        raise ValueError(f"{name}: a removed weight is not 0")
    values = tensor[mask]
    encoding, places = _encode(mask.flatten().numpy())
    if places.nbytes + values.nbytes >= tensor.nbytes:
        return None
    return _Pruned(values, encoding, places)


def _encode(kept: Kept) -> tuple[str, Bytes]:
    """Return the shortest encoding of which elements are kept, and its name."""
    encodings = {name: _encode_gaps(kept, code) for name, code in _GAPS.items()}
    encodings["bitmask"] = np.packbits(kept)
    return min(encodings.items(), key=lambda item: item[1].nbytes)


def _encode_gaps(kept: Kept, code: np.dtype[Any]) -> Bytes:
    highest = np.iinfo(code).max
    gaps = np.diff(np.flatnonzero(kept), prepend=-1) - 1
    skips, rest = np.divmod(gaps, highest)
    codes = np.full(len(gaps) + skips.sum(), highest, code)
    codes[np.cumsum(skips + 1) - 1] = rest
    return codes.view(np.uint8)


def _decode(encoding: str, places: Bytes, size: int) -> Kept:
    if encoding == "bitmask":
        return np.unpackbits(places, count=size).astype(bool)
    codes = places.view(_GAPS[encoding])
    ends_in_kept = codes != np.iinfo(codes.dtype).max
    kept = np.zeros(size, dtype=bool)
    kept[(np.cumsum(codes + ends_in_kept, dtype=np.int64) - 1)[ends_in_kept]] = True
    return kept


def _first_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Return for each name the first name of the same tensor."""
    firsts: dict[object, str] = {}
    return {
        name: firsts.setdefault(_memory(tensor) if tensor.numel() else name, name)
        for name, tensor in state.items()
    }


def _memory(tensor: Tensor) -> object:
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _digest(layout: str, stored: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(layout.encode())
    for name in sorted(stored):
        tensor = stored[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(path: Path) -> tuple[Mapping[str, str], dict[str, Tensor]]:
    if not path.is_file():
        raise RequestError(f"{path}: there is no such file")
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise RequestError(f"{path}: is no weights file, or a damaged one: {error}") from None
