"""A registered task, pruner or kind of units, known from its source and imported when needed."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

from harness.errors import ImportFailed, RequestError, nearest
from harness.plugin_code import PluginCode, without_prefix
from harness.settings import Setting, Settings
from harness.signals import raised_by_code

Module = TypeVar("Module", bound=ModuleType | None)
Kind = Literal["task", "pruner", "units"]


@dataclass(frozen=True)
class Entry:
    """One registered definition, read from its source."""

    kind: Kind
    name: str
    attribute: str
    """The name of the function or class in its module."""
    source: Path
    module: str | None
    """The module's importable name; None for a file given by ``--plugin``."""
    arguments: Mapping[str, Any]
    """The decorator's arguments; settings and profiles as dictionaries of plain values."""
    summary: str
    """The first line of the docstring."""
    declared: Mapping[str, Setting] = field(default_factory=dict)
    """A task's settings or a pruner's options, by name."""
    settings_type: type[Settings] | None = None
    """The dataclass of a task's settings; None if they are written as a dictionary."""

    @property
    def title(self) -> str:
        """The name for tables and figures."""
        return str(self.arguments.get("title", self.name))

    @cached_property
    def options(self) -> dict[str, Any]:
        """A pruner's options with their defaults; empty for a task."""
        if self.kind == "task":
            return {}
        return {name: setting.default for name, setting in self.declared.items()}

    @cached_property
    def _settings_by_profile(self) -> dict[str, dict[str, Setting]]:
        return {
            profile: {
                name: replace(self.declared[name], default=value)
                for name, value in {**self.arguments["settings"], **changes}.items()
            }
            for profile, changes in self.arguments["profiles"].items()
        }

    def settings_in(self, profile: str) -> Mapping[str, Setting]:
        """Return a task's settings by name, with a profile's values as defaults.

        Raises:
            RequestError: the task has no such profile.
        """
        by_profile = self._settings_by_profile
        if profile not in by_profile:
            raise RequestError(
                f"task {self.name!r} has no profile {profile!r}{nearest(profile, by_profile)}"
            )
        return by_profile[profile]

    def build_settings(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a task's settings as the task expects them: an instance of its dataclass."""
        return dict(values) if self.settings_type is None else self.settings_type(**values)

    @cached_property
    def version(self) -> int | str:
        """The version of its results: a number, or the hash of a plug-in's code.

        Raises:
            RequestError: the code of a plug-in cannot be read.
        """
        if self.code is None:
            return int(self.arguments.get("version", 1))
        return self._fingerprint()

    @property
    def code(self) -> PluginCode | None:
        """The code of a plug-in; None for an installed definition."""
        if self.module is not None:
            return None
        data = str(self.arguments.get("data", "")).partition(":")[0]
        return PluginCode(self.source, (data,) if data else ())

    def _fingerprint(self) -> str:
        assert self.code is not None
        try:
            return self.code.fingerprint()
        except SyntaxError as error:
            file = Path(error.filename or self.source).name
            raise RequestError(
                f"{self.kind} {self.name!r}: {file} is not Python: {error.msg}, line {error.lineno}"
            ) from None
        except (OSError, ValueError) as error:
            raise RequestError(f"{self.kind} {self.name!r} cannot be read: {error}") from None

    @property
    def has_changed(self) -> bool:
        """Whether the code of a plug-in has changed since its version was read."""
        return self.code is not None and self._fingerprint() != self.version

    def load(self) -> Any:
        """Import the definition.

        Raises:
            RequestError: the module cannot be imported.
        """
        return self.beside(self.attribute)

    def beside(self, attribute: str) -> Any:
        """Import another attribute of the definition's own module.

        Raises:
            RequestError: the module cannot be imported, or has no such attribute.
        """
        module = self._import(self._own_module)
        if not hasattr(module, attribute):
            raise ImportFailed(
                f"{self.kind} {self.name!r}: {self.source.name} has no {attribute!r}"
            )
        return getattr(module, attribute)

    def describe(self) -> Callable[..., Any]:
        """Import the function that describes a task's data.

        Raises:
            RequestError: it cannot be imported, or is not a function.
        """
        name, _, function = str(self.arguments["data"]).partition(":")
        if not name:
            found = self.beside(function)
        else:
            beside = None if self.code is None else self._import(lambda: self._beside(name))
            try:
                found = getattr(beside or importlib.import_module(name), function)
            except (ImportError, AttributeError) as error:
                raise RequestError(
                    f"task {self.name!r}: what describes its data: {without_prefix(str(error))}"
                ) from None
        if not callable(found):
            raise RequestError(
                f"task {self.name!r}: {function!r}, which describes its data, is not a function"
            )
        describe: Callable[..., Any] = found
        return describe

    def _own_module(self) -> ModuleType:
        if self.module is not None:
            return importlib.import_module(self.module)
        assert self.code is not None
        if not self.code.is_imported and self.has_changed:
            raise RequestError(
                f"{self.kind} {self.name!r}: the code of {self.source.name} has changed since it "
                "was read; run the command again"
            )
        return self.code.load(str(self.version))

    def _beside(self, name: str) -> ModuleType | None:
        assert self.code is not None
        return self.code.load_beside(name)

    def _import(self, load: Callable[[], Module]) -> Module:
        """Import something; if it fails, say why in one line."""
        try:
            return load()
        except RequestError:
            raise
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            if isinstance(error, KeyboardInterrupt) and not raised_by_code(error):
                raise
            own = {str(self.source)}
            if self.code is not None:
                own |= {str(file) for file in self.code.files().values()}
            frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in own]
            place = f"{self.source.name}"
            if frames:
                place = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}"
            raise ImportFailed(
                f"{self.kind} {self.name!r}: {place}: does not import: "
                f"{without_prefix(f'{type(error).__name__}: {error}')}"
            ) from error
