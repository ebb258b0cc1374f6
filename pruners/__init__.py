"""How, when and what to prune.

How: `pruners.criteria`. When: `pruners.triggers` and `pruners.schedules`. What:
`pruners.weights` and `pruners.channels`. Where the sparsity goes: `pruners.distributions`. The
methods of the literature, each a short program over a run: `pruners.methods`.
"""
