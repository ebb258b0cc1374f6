"""How, when and what to prune, and the methods of the literature.

`pruners.methods` holds the methods, each a short program over a run. They are made of these parts:

* how: `pruners.criteria`, `pruners.functional_criteria` and `pruners.activations`, and for channels
  also `pruners.channels.criteria`;
* when: `pruners.triggers`, and in how many steps: `pruners.schedules`;
* what: `pruners.weights`, also in `pruners.patterns`, and `pruners.channels`;
* the sparsity distribution over layers: `pruners.distributions`;
* what happens while a run trains: `pruners.training`.
"""
