"""A network's weights in a file that leaves out what was removed.

The file is in the safetensors format. A pruned weight ``NAME`` is stored as two tensors: the
kept values ``NAME:values``, in the order of the weight's elements, and their places
``NAME:places``, as bytes, in the shortest of these encodings:

* ``all``: no bytes; all elements are kept;
* ``bitmask``: one bit per element, the first in the highest bit of a byte;
* ``gaps8``, ``gaps16``: the number of removed elements before each kept one, in one or two
  bytes, as in Deep Compression (Han et al., arXiv:1510.00149). The highest code means that many
  removed elements and no kept one (their paper stores a zero there).

A weight that these encodings would not shorten is stored as it is.

The state of the run's units is stored beside the weights. A mask that equals a weight's places or
its nonzero elements takes no space; all others are encoded like places, one after the other, in
the tensor ``:units``.

The header has a single entry, because safetensors writes several in random order, and equal
networks must give equal bytes. Its ``layout`` describes encodings, shapes, tied weights and units;
``sha256`` is the checksum of the whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from harness.errors import RequestError, RunFailed
from harness.storage import files

_FORMAT, _FIRST_FORMAT = "pruning-benchmark/2", "pruning-benchmark/1"
_HEADER = "network"
_UNITS = ":units"
_MOST_THINGS = 1 << 20
"""Larger numbers are unlikely to be channel indices, and would make a mask too large."""
_GAPS: Mapping[str, np.dtype[Any]] = {"gaps8": np.dtype("<u1"), "gaps16": np.dtype("<u2")}

Kept = NDArray[np.bool_]
"""For each element of a weight, whether it was kept."""
Bytes = NDArray[np.uint8]
"""An encoding of places."""
States = Mapping[str, Mapping[str, Any]]
"""The state of each kind of units by name: tensors, or values that JSON can represent."""


class Stored(NamedTuple):
    """The contents of a file."""

    weights: dict[str, Tensor]
    """The saved tensors on the CPU, with the same names, bits, types and shapes."""
    units: dict[str, dict[str, Any]] | None
    """The state of each kind of units; None in a file of the first format."""


def save_weights(
    path: Path,
    state: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    units: States | None = None,
) -> int:
    """Write a model's state and return the size of the file in bytes.

    Names that share their memory are stored once. A kept weight that happens to be 0 is stored
    like any other. Equal networks give equal bytes, in every process.

    Args:
        path: the file; it appears whole or not at all.
        state: tensors by name, as ``state_dict`` returns them; removed weights are 0.
        masks: the kept elements of pruned weights, boolean, by name.
        units: the state of each kind of units.

    Raises:
        RunFailed: the file cannot be written, or a state of units cannot be stored.
        ValueError: a removed weight is not 0.
    """
    content = contents(state, masks, units)
    files.write(path, content)
    return len(content)


def contents(
    state: Mapping[str, Tensor], masks: Mapping[str, Tensor], units: States | None = None
) -> bytes:
    """Return the bytes that `save_weights` writes."""
    first_names = _first_names(state)
    kept = {first_names[name]: mask.cpu() for name, mask in masks.items()}
    stored: dict[str, Tensor] = {}
    encoded: dict[str, Any] = {}
    for name in dict.fromkeys(first_names.values()):
        tensor = state[name].detach().cpu().contiguous()
        pruned = _without_removed(name, tensor, kept[name]) if name in kept else None
        if pruned is None:
            stored[name] = tensor.clone()
        else:
            stored[f"{name}:values"] = pruned.values
            stored[f"{name}:places"] = torch.from_numpy(pruned.places)
            encoded[name] = {"shape": list(tensor.shape), "encoding": pruned.encoding}
    told = {
        name: kept[first] if first in encoded else stored[first] != 0
        for name, first in first_names.items()
        if first in kept
    }
    layout = {
        "pruned": encoded,
        "tied": {name: first for name, first in first_names.items() if name != first},
        "units": _store_units(units or {}, told, stored),
    }
    header = {"format": _FORMAT, "layout": layout, "sha256": _digest(_text(layout), stored)}
    return save(stored, {_HEADER: _text(header)})


def load_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights that `save_weights` wrote; see `load`.

    Raises:
        RequestError: the file does not exist, is damaged, or is not such a file.
    """
    return load(path).weights


def load(path: Path) -> Stored:
    """Read what `save_weights` wrote.

    Tied names get the same tensor; removed weights are +0.

    Raises:
        RequestError: the file does not exist, is damaged, or is not such a file.
    """
    metadata, stored = _read(path)
    header = json.loads(metadata[_HEADER]) if _HEADER in metadata else dict(metadata)
    if header.get("format") not in (_FORMAT, _FIRST_FORMAT):
        raise RequestError(f"{path}: contains no weights in the format {_FORMAT}")
    layout = header.get("layout", "")
    text = layout if isinstance(layout, str) else _text(layout)
    if header.get("sha256") != _digest(text, stored):
        raise RequestError(f"{path} is damaged: its contents do not match its checksum")
    if isinstance(layout, str):
        layout = json.loads(layout)
    code = stored.pop(_UNITS, torch.zeros(0, dtype=torch.uint8)).numpy()
    masks: dict[str, Tensor] = {}
    for name, pruned in layout["pruned"].items():
        values, places = stored.pop(f"{name}:values"), stored.pop(f"{name}:places").numpy()
        shape = torch.Size(pruned["shape"])
        weight = torch.zeros(shape, dtype=values.dtype)
        kept = _decode(pruned["encoding"], places, shape.numel())
        masks[name] = torch.from_numpy(kept).reshape(shape)
        weight[masks[name]] = values
        stored[name] = weight
    tied = layout["tied"]
    units = None
    if "units" in layout:
        units = _load_units(layout["units"], code, stored, masks, tied)
    return Stored(stored | {name: stored[first] for name, first in tied.items()}, units)


def _store_units(
    units: States, told: Mapping[str, Tensor], stored: dict[str, Tensor]
) -> dict[str, dict[str, Any]]:
    """Add the states of units to the stored tensors, and return the layout of their values.

    Args:
        units: the states.
        told: the masks that can be derived from the stored weights, by name.
        stored: the tensors of the file.
    """
    code = [np.zeros(0, dtype=np.uint8)]
    layout: dict[str, dict[str, Any]] = {}
    for kind, state in units.items():
        layout[kind] = {}
        for name, value in state.items():
            if not isinstance(value, Tensor):
                layout[kind][name] = {"value": _checked(kind, name, value)}
                continue
            tensor = value.detach().cpu()
            if name in told and tensor.dtype == torch.bool and tensor.equal(told[name]):
                layout[kind][name] = {"as": "weight"}
            elif tensor.dtype == torch.bool or _is_ascending(tensor):
                kept = tensor if tensor.dtype == torch.bool else _mask_of(tensor)
                encoding, places = _encode(kept.flatten().numpy())
                layout[kind][name] = {
                    "as": "mask" if tensor.dtype == torch.bool else "numbers",
                    "shape": list(kept.shape),
                    "encoding": encoding,
                    "bytes": len(places),
                }
                code.append(places)
            else:
                layout[kind][name] = {"as": "tensor"}
                stored[f"{_UNITS}:{kind}:{name}"] = tensor.contiguous().clone()
    places = np.concatenate(code)
    if len(places) > 0:
        stored[_UNITS] = torch.from_numpy(places)
    return layout


def _load_units(
    layout: Mapping[str, Mapping[str, Any]],
    code: Bytes,
    stored: dict[str, Tensor],
    masks: Mapping[str, Tensor],
    tied: Mapping[str, str],
) -> dict[str, dict[str, Any]]:
    """Return the states of units, and remove their tensors from those of the weights."""
    units: dict[str, dict[str, Any]] = {}
    for kind, state in layout.items():
        units[kind] = {}
        for name, how in state.items():
            match how.get("as"):
                case None:
                    value = how["value"]
                case "weight":
                    first = tied.get(name, name)
                    value = masks[first].clone() if first in masks else stored[first] != 0
                case "tensor":
                    value = stored.pop(f"{_UNITS}:{kind}:{name}")
                case _:
                    places, code = code[: how["bytes"]], code[how["bytes"] :]
                    shape = torch.Size(how["shape"])
                    kept = torch.from_numpy(_decode(how["encoding"], places, shape.numel()))
                    value = kept.reshape(shape)
                    if how["as"] == "numbers":
                        value = value.nonzero().flatten()
            units[kind][name] = value
    return units


def _checked(kind: str, name: str, value: object) -> object:
    """Return a value that is not a tensor as JSON gives it back."""
    try:
        same: object = json.loads(_text(value))
    except (TypeError, ValueError):
        same = None
    if same != value:
        raise RunFailed(
            f"units {kind!r}: {name!r} of their state is of the type {type(value).__name__}, "
            "which cannot be stored; use tensors, numbers, strings or lists"
        )
    return same


def _is_ascending(tensor: Tensor) -> bool:
    """Return whether a tensor holds strictly ascending indices."""
    if tensor.dtype != torch.int64 or tensor.dim() != 1:
        return False
    ascending = bool((tensor.diff(prepend=tensor.new_tensor([-1])) > 0).all())
    return ascending and (len(tensor) == 0 or int(tensor[-1]) < _MOST_THINGS)


def _mask_of(numbers: Tensor) -> Tensor:
    """Return a mask that is true at the given ascending indices."""
    mask = torch.zeros(int(numbers[-1]) + 1 if len(numbers) else 0, dtype=torch.bool)
    mask[numbers] = True
    return mask


@dataclass(frozen=True)
class _Pruned:
    values: Tensor
    encoding: str
    places: Bytes


def _without_removed(name: str, tensor: Tensor, mask: Tensor) -> _Pruned | None:
    """Return the kept values and their places; None if they are no shorter than the tensor."""
    if tensor[~mask].any():
        raise ValueError(f"{name}: a removed weight is not 0")
    values = tensor[mask]
    encoding, places = _encode(mask.flatten().numpy())
    if places.nbytes + values.nbytes >= tensor.nbytes:
        return None
    return _Pruned(values, encoding, places)


def _encode(kept: Kept) -> tuple[str, Bytes]:
    """Return the name of the shortest encoding of a mask, and its bytes."""
    if kept.all():
        return "all", np.zeros(0, dtype=np.uint8)
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
    if encoding == "all":
        return np.ones(size, dtype=bool)
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


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


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
        raise RequestError(f"{path} is not a weights file, or is damaged: {error}") from None


def require_same_network(
    run: str,
    here: Mapping[str, Any],
    stored: Mapping[str, Any],
    describe: Callable[[Any], str] | None = None,
) -> None:
    """Check that the network of a run has the same tensors as the one that its task builds.

    Args:
        run: the run's name, for the error.
        here: what the task builds, by name.
        stored: what the run left, by name.
        describe: what has to be equal, as text; by default the shape of a tensor.

    Raises:
        RequestError: a name is missing on one side, or the two differ.
    """
    described = describe or _shape
    for name in {**here, **stored}:
        ours, theirs = (
            described(parts[name]) if name in parts else "missing" for parts in (here, stored)
        )
        if ours != theirs:
            raise RequestError(
                f"{run} is another network: its {name!r} is {theirs}, and here {ours}"
            )


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"
