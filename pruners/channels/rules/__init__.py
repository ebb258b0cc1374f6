"""What each operation does to labels.

The rule of an operation is a function ``rule(trace, out, *args, **kwargs)``. Its arguments are the
labels of all tensors, the result of the operation, and the arguments of the operation as
`torch.ops.aten` documents them. It unites or pins labels and returns those of the result: a list
with one array per axis, or a tuple of such lists if the operation returns several labelled
tensors. A rule is registered under the operation's name in ``aten``. The in-place variant, with a
trailing underscore, shares it.

To teach the tracer a new operation, add a function to one of these modules, or pass it as
``extra_rules``::

    def renorm(trace, out, x, p, dim, maxnorm):
        return trace[x]  # rows are scaled: no channel meets another

    trace_channels(model, inputs, extra_rules={"renorm": renorm})
"""

from __future__ import annotations

from pruners.channels.rules import (  # each registers its rules
    indexing,
    pointwise,
    products,
    reductions,
    sequences,
    shapes,
)
from pruners.channels.rules.registry import FUNCTION_RULES, RULES, Rule, function_rule, rule

__all__ = [
    "FUNCTION_RULES",
    "RULES",
    "Rule",
    "function_rule",
    "indexing",
    "pointwise",
    "products",
    "reductions",
    "rule",
    "sequences",
    "shapes",
]
