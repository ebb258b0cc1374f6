"""What a run and its final network cost, measured in phases of their own.

A run's `meter` counts what the method does and leaves the suite's instruments out. Memory
(`harness.costs.memory`, of a single step `allocations`), time (`timing`, and in `usage` what
disturbed it), multiply-accumulates (`operations`), bytes on disk (`disk`) and energy (`energy`).
What cannot be measured is None with a reason, never 0 (`measured`); what is estimated says so.
"""
