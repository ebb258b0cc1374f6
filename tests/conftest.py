"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("shared_machine", deadline=None)
settings.load_profile("shared_machine")


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """Let the processor compute with denormals again: a run flushes them, and hypothesis minds."""
    yield
    torch.set_flush_denormal(False)
