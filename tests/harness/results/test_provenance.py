"""Where a run was carried out, without naming it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.results import provenance
from harness.results.provenance import environment, host

CPU = torch.device("cpu")
IDENTIFIER = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def machine_id(tmp_path: Path) -> Path:
    file = tmp_path / "machine-id"
    file.write_text(IDENTIFIER + "\n")
    return file


def test_a_host_has_a_pseudonym_that_says_nothing_of_it(machine_id: Path) -> None:
    known = host(machine_id)
    assert known is not None
    assert known == host(machine_id)
    assert len(known) == 12
    assert known not in hashlib.sha256(IDENTIFIER.encode()).hexdigest()
    machine_id.write_text(IDENTIFIER.replace("0", "1"))
    assert host(machine_id) not in (None, known)


def test_a_host_without_an_identifier_has_no_pseudonym(machine_id: Path) -> None:
    machine_id.write_text("")
    assert host(machine_id) is None
    machine_id.unlink()
    assert host(machine_id) is None


def test_a_machine_is_the_same_twice() -> None:
    assert environment(CPU) == environment(CPU)


@pytest.mark.parametrize(
    "change",
    [
        lambda patch: patch.setattr(provenance, "host", lambda: "another"),
        lambda patch: patch.setattr(provenance, "describe_device", lambda device: "Abacus 1"),
        lambda patch: patch.setattr(torch, "get_num_threads", lambda: 77),
        lambda patch: patch.setattr(torch, "__version__", "9.9.9+cpu"),
        lambda patch: patch.setattr(torch.__config__, "show", lambda: "BLAS_INFO=open"),
        lambda patch: patch.setattr(torch, "get_float32_matmul_precision", lambda: "medium"),
        lambda patch: patch.setenv("OMP_WAIT_POLICY", "PASSIVE"),
        lambda patch: torch.set_flush_denormal(True),
    ],
)
def test_what_changes_times_makes_another_machine(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], object]
) -> None:
    torch.set_flush_denormal(False)
    before = environment(CPU)["machine"]
    change(monkeypatch)
    assert environment(CPU)["machine"] != before


def test_flushing_of_denormals_is_looked_at_and_not_assumed() -> None:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormals")
    assert environment(CPU)["denormals_flushed"] is True
    torch.set_flush_denormal(False)
    assert environment(CPU)["denormals_flushed"] is False
