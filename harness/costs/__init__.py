"""What a run and its final network cost.

The `meter` of a run counts what the method does, and leaves the suite's instruments out. `memory`
measures peaks, `timing` single calls and how much other work disturbed them, `operations`
multiply-accumulates, and `energy` energy and emissions. A cost that cannot be measured is None
with a reason, never 0; an estimate is called an estimate.
"""
