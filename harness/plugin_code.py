"""The code of a plug-in: its file and the modules beside it, their identity and their import.

Modules that a plug-in imports from its own folder are found from any working directory, and are
part of its identity. Plug-ins of two folders do not interfere: each folder becomes a package with
a name of its own, and import statements in its files look there first. Modules of Python's
standard library and of this project are never taken from there.

Imports are read from the source, so that no file is run. A module whose name is only known at run
time (``importlib.import_module(name)``) is neither found there nor part of the identity. Nor are
data files.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

_Module = tuple[str, Path | None]
"""A dotted name relative to the root, and the file; None for a folder without ``__init__.py``."""

OURS = frozenset({"harness", "tasks", "pruners", "reports", "benchmarks"})
"""The packages of this project."""

_PREFIX = "plugin_"
_roots: dict[str, Path] = {}
"""The root folders of the imported plug-ins, by the names of their packages."""
_imported: dict[str, str] = {}
"""The fingerprint of each plug-in at its import, by the name of its module."""


@dataclass(frozen=True)
class PluginCode:
    """The code of one plug-in file.

    Args:
        source: the file.
        further: dotted names of modules beside it that it needs without importing them.
    """

    source: Path
    further: tuple[str, ...] = ()

    @property
    def root(self) -> Path:
        """The folder that is searched first for imports.

        It is the folder of the file, or, for a file in a package, that of the outermost package.
        """
        folder = self.source.parent
        while (folder / "__init__.py").is_file():
            folder = folder.parent
        return folder

    @property
    def name(self) -> str:
        """The dotted name of the file's module, relative to the root."""
        return ".".join(self.source.relative_to(self.root).with_suffix("").parts)

    def files(self) -> dict[str, Path]:
        """Return the plug-in's file and the files beside it that it imports, by module.

        Raises:
            OSError, SyntaxError, ValueError: a file cannot be read.
        """
        root, own = self.root, self.name.rpartition(".")[0]
        found = {self.name: self.source}
        waiting = [*found.items()]
        for name in self.further:
            waiting += _not_in(found, _beside(root, own, name))
        while waiting:
            module, file = waiting.pop()
            package = module if file.name == "__init__.py" else module.rpartition(".")[0]
            for statement in _imports(file):
                waiting += _not_in(found, _imported_by(statement, root, package))
        return found

    def fingerprint(self) -> str:
        """Return a hash of the code without comments, docstrings and layout.

        Raises:
            OSError, SyntaxError, ValueError: a file cannot be read.
        """
        whole = hashlib.sha256()
        for name, file in sorted(self.files().items()):
            own = "" if file == self.source else name
            tree = ast.parse(file.read_bytes(), str(file))
            whole.update(f"{own}\n{_canonical(tree)}\n".encode())
        return whole.hexdigest()[:16]

    @property
    def is_imported(self) -> bool:
        """Whether this process has imported the file."""
        return f"{_package_of(self.root)}.{self.name}" in sys.modules

    def load(self, fingerprint: str) -> ModuleType:
        """Import the file, unless code with the same fingerprint is already imported."""
        package = _package_of(self.root)
        name = f"{package}.{self.name}"
        if self.is_imported and _imported.setdefault(name, fingerprint) != fingerprint:
            _forget(package, keep=())
        before = tuple(sys.modules)
        try:
            module = importlib.import_module(name)
        except BaseException:
            _forget(package, keep=before)
            raise
        _imported[name] = fingerprint
        return module

    def load_beside(self, module: str) -> ModuleType | None:
        """Import a module beside the file; return None if there is none of this name."""
        located = _beside(self.root, self.name.rpartition(".")[0], module)
        if not located or located[-1][0].count(".") < module.count("."):
            return None
        return importlib.import_module(f"{_package_of(self.root)}.{located[-1][0]}")


def _package_of(root: Path) -> str:
    """Return the name of the package of a root, creating the package on first use."""
    name = _PREFIX + hashlib.sha256(str(root).encode()).hexdigest()[:8]
    if name not in sys.modules:
        package = ModuleType(name, "The root folder of a plug-in.")
        package.__path__ = [str(root)]
        sys.modules[name] = package
        _roots[name] = root
        if not any(isinstance(each, _Finder) for each in sys.meta_path):
            sys.meta_path.insert(0, _Finder())
    return name


def _forget(package: str, keep: Sequence[str]) -> None:
    """Remove the modules of a package from Python's cache, except those in ``keep``."""
    for name in [each for each in sys.modules if each.startswith(f"{package}.")]:
        if name not in keep:
            del sys.modules[name]
            _imported.pop(name, None)
            parent, _, stem = name.rpartition(".")
            if parent in sys.modules:
                vars(sys.modules[parent]).pop(stem, None)


def without_prefix(text: str) -> str:
    """Return a text with the names of plug-in modules as import statements spell them."""
    for package in _roots:
        text = text.replace(f"{package}.", "")
    return text


def _not_in(found: dict[str, Path], located: Iterable[_Module]) -> list[tuple[str, Path]]:
    """Add the newly found files to ``found``, and return them."""
    fresh = [(name, file) for name, file in located if file is not None and name not in found]
    found.update(fresh)
    return fresh


def _imports(file: Path) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in ast.walk(ast.parse(file.read_bytes(), str(file))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node


def _imported_by(
    statement: ast.Import | ast.ImportFrom, root: Path, package: str
) -> Iterator[_Module]:
    """Yield the modules beside a plug-in that a statement in a package may import."""
    if isinstance(statement, ast.Import):
        for alias in statement.names:
            yield from _beside(root, package, alias.name)
        return
    stem = [statement.module] if statement.module else []
    # A name imported from a package may be one of its modules.
    names = [".".join([*stem, *part]) for part in ([], *([each.name] for each in statement.names))]
    for name in filter(None, names):
        if statement.level == 0:
            yield from _beside(root, package, name)
        else:
            parents = package.split(".") if package else []
            parents = parents[: max(0, len(parents) - statement.level + 1)]
            yield from _located(root, ".".join([*parents, name]))


def _beside(root: Path, package: str, name: str) -> list[_Module]:
    """Return the modules of an absolute dotted name that lie beside a plug-in.

    They are looked up in the root, and then in the folder of the importing file, as if that
    folder were not a package.
    """
    top = name.partition(".")[0]
    if top in OURS or top in sys.stdlib_module_names:
        return []
    for base in dict.fromkeys(("", package)):
        folder = root.joinpath(*filter(None, base.split(".")))
        if (found := _module(folder, top)) is None:
            continue
        if found[0] is None and _is_installed(top):
            continue  # Python prefers any module to a folder without __init__.py
        dotted = f"{base}.{name}" if base else name
        return _located(root, dotted)[len(list(filter(None, base.split(".")))) :]
    return []


def _located(root: Path, dotted: str) -> list[_Module]:
    """Return the modules of a dotted name below a root, with files, up to the first missing one."""
    folder, found = root, list[_Module]()
    parts = dotted.split(".")
    for depth, part in enumerate(parts, start=1):
        located = _module(folder, part)
        if located is None:
            break
        found.append((".".join(parts[:depth]), located[0]))
        folder = folder / part
    return found


def _module(folder: Path, name: str) -> tuple[Path | None, bool] | None:
    """Return the file of the module of this name in a folder, and whether it is a package.

    A folder without an ``__init__.py`` is a package without a file.
    """
    if (package := folder / name / "__init__.py").is_file():
        return package, True
    if (module := folder / f"{name}.py").is_file():
        return module, False
    return (None, True) if (folder / name).is_dir() else None


def _is_installed(name: str) -> bool:
    """Return whether Python finds a module of this name elsewhere, and not only a folder."""
    specification = importlib.util.find_spec(name)
    return specification is not None and specification.origin is not None


class _Finder:
    """Finds the modules of the packages of plug-in roots."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] not in _roots or path is None:
            return None
        stem = name.rpartition(".")[2]
        for folder in map(Path, path):
            if (located := _module(folder, stem)) is None:
                continue
            file, is_package = located
            locations = [str(folder / stem)] if is_package else None
            if file is None:
                specification = ModuleSpec(name, None, is_package=True)
                specification.submodule_search_locations = locations
                return specification
            return importlib.util.spec_from_file_location(
                name,
                file,
                loader=_Loader(name, str(file)),
                submodule_search_locations=locations,
            )
        return None


class _Loader(SourceFileLoader):
    """Loads a file of a plug-in; its import statements look beside the plug-in first."""

    def get_code(self, fullname: str) -> Any:
        # Never from a cache, which only compares size and time in seconds.
        return self.source_to_code(self.get_data(self.path), self.path)

    def exec_module(self, module: ModuleType) -> None:
        package = module.__name__.partition(".")[0]
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": _Import(package)}
        super().exec_module(module)


@dataclass(frozen=True)
class _Import:
    """Replaces ``__import__`` in the files of a plug-in."""

    package: str

    def __call__(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 - Python's own name
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        parent = str((globals or {}).get("__package__", "")).partition(".")[2]
        located = _beside(_roots[self.package], parent, name) if level == 0 else []
        if not located:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        top = located[0][0]
        whole = f"{self.package}.{top}{name.removeprefix(top.rpartition('.')[2])}"
        if fromlist:
            return builtins.__import__(whole, globals, locals, fromlist, 0)
        importlib.import_module(whole)
        return sys.modules[f"{self.package}.{top}"]


def _canonical(node: object) -> str:
    """Return a text for a syntax tree that is the same in every version of Python.

    It has no positions, no docstrings and no empty fields, because newer versions add fields.
    """
    if isinstance(node, list):
        return f"[{' '.join(map(_canonical, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: getattr(node, name, None) for name in node._fields}
    if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = node.body[1:]
    given = [f"{key}={_canonical(v)}" for key, v in fields.items() if v is not None and v != []]
    return f"{type(node).__name__}({' '.join(given)})"


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
