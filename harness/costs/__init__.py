"""What a run and its final network cost, measured in phases of their own.

Memory (`harness.costs.memory`), time (`timing`), multiply-accumulates (`operations`), bytes on
disk (`disk`) and energy (`energy`). What cannot be measured is None with a reason, never 0
(`measured`); what is estimated says so.
"""
