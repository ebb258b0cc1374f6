"""Packages of other people, as Python finds them after an installation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def install(package: Mapping[str, Any], folder: Path) -> None:
    """Write what an installer records of a package, where Python finds its modules already.

    Args:
        package: its name, version and entry points, as in a ``pyproject.toml``.
        folder: a folder in which Python searches.
    """
    metadata = folder / f"{str(package['name']).replace('-', '_')}-{package['version']}.dist-info"
    metadata.mkdir()
    text = f"Metadata-Version: 2.1\nName: {package['name']}\nVersion: {package['version']}\n"
    (metadata / "METADATA").write_text(text)
    lines = [
        line
        for group, points in package["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {target}" for name, target in points.items()))
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
