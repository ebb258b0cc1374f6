"""How, when and what to prune.

How: `pruners.criteria`, and for channels `pruners.channels.criteria`. When: `pruners.triggers` and
`pruners.schedules`. What: `pruners.weights` and `pruners.channels`. Where the sparsity goes:
`pruners.distributions`. How to train around it: `pruners.training`. The methods of the literature,
each a short program over a run: `pruners.methods`.
"""
