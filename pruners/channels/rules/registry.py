"""The rules of operations, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

from pruners.channels.labels import Axes

Rule = Callable[..., Axes | tuple[Axes, ...]]
AnyRule = TypeVar("AnyRule", bound=Rule)

RULES: dict[str, Rule] = {}
"""The rules of operations, by their names in ``torch.ops.aten``."""

FUNCTION_RULES: dict[Callable[..., Any], Rule] = {}
"""The rules of functions whose single operations would not show which channels are coupled."""


def rule(*names: str) -> Callable[[AnyRule], AnyRule]:
    """Register a function as the rule of the operations with these names."""

    def register(function: AnyRule) -> AnyRule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def function_rule(*functions: Callable[..., Any]) -> Callable[[AnyRule], AnyRule]:
    """Register a function as the rule of functions of torch that count as one operation."""

    def register(function: AnyRule) -> AnyRule:
        FUNCTION_RULES.update(dict.fromkeys(functions, function))
        return function

    return register


def tensors_in(arguments: Any) -> list[Tensor]:
    """Return all tensors among nested arguments."""
    if isinstance(arguments, Tensor):
        return [arguments]
    if isinstance(arguments, dict):
        arguments = list(arguments.values())
    if isinstance(arguments, (tuple, list)):
        return [tensor for argument in arguments for tensor in tensors_in(argument)]
    return []
