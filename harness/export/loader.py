"""Load the network that lies beside this file: `network = load()`. Needs nothing but torch."""

import json
import runpy
from pathlib import Path

import torch

FOLDER = Path(__file__).resolve().parent


def load() -> torch.nn.Module:
    """Return the network, which computes as in evaluation mode."""
    content = bytearray((FOLDER / "model.safetensors").read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    network: torch.nn.Module = runpy.run_path(str(FOLDER / "network.py"))["Network"]()
    state = network.state_dict()
    for name, stored in json.loads(content[8:start]).items():
        first, last = (start + offset for offset in stored["data_offsets"])
        flat = torch.frombuffer(content[first:last], dtype=state[name].dtype)
        state[name] = flat.reshape(stored["shape"])
    network.load_state_dict(state)
    return network.eval()
